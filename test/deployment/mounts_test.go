package deployment

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// deployed is what a kustomization makes: the pods of the daemons and of the cluster controller, and their configuration.
type deployed struct {
	daemon, controller corev1.PodSpec
	config             config.Config
}

func render(t *testing.T, directory string) deployed {
	t.Helper()
	g := NewWithT(t)
	var d deployed
	for _, o := range objects(t, []byte(mustRun(t, "kustomize", filepath.Join(root, directory)))) {
		switch {
		case o.GetKind() == "DaemonSet":
			var set appsv1.DaemonSet
			g.Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &set)).To(Succeed())
			d.daemon = set.Spec.Template.Spec
		case o.GetKind() == "Deployment":
			var set appsv1.Deployment
			g.Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &set)).To(Succeed())
			d.controller = set.Spec.Template.Spec
		case o.GetKind() == "ConfigMap" && strings.HasPrefix(o.GetName(), "ws-daemon-config-"):
			var m corev1.ConfigMap
			g.Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &m)).To(Succeed())
			file := filepath.Join(t.TempDir(), "config.json")
			g.Expect(os.WriteFile(file, []byte(m.Data["config.json"]), 0o600)).To(Succeed())
			var err error
			d.config, err = config.Load(file)
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
	return d
}

// mounted returns how a path is mounted in a pod, and the volume.
func mounted(t *testing.T, pod corev1.PodSpec, path string) (corev1.VolumeMount, corev1.Volume) {
	t.Helper()
	g := NewWithT(t)
	var found corev1.VolumeMount
	for _, m := range pod.Containers[0].VolumeMounts {
		if (path == m.MountPath || strings.HasPrefix(path, m.MountPath+"/")) && len(m.MountPath) > len(found.MountPath) {
			found = m
		}
	}
	g.Expect(found.Name).NotTo(BeEmpty(), "%s is on no mount", path)
	i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == found.Name })
	g.Expect(i).To(BeNumerically(">=", 0), found.Name)
	return found, pod.Volumes[i]
}

// host returns how a path of the host is mounted, and fails if that is not what the host has there under the same path.
func host(t *testing.T, pod corev1.PodSpec, path string) *corev1.MountPropagationMode {
	t.Helper()
	mount, volume := mounted(t, pod, path)
	NewWithT(t).Expect(volume.HostPath).To(HaveValue(HaveField("Path", mount.MountPath)), path)
	return mount.MountPropagation
}

// Whatever the configuration names is mounted, under the path that kubelet and pods know it by, and mounts get where they have to.
func TestWhatTheConfigurationNamesIsMounted(t *testing.T) {
	both := HaveValue(Equal(corev1.MountPropagationBidirectional))
	for _, directory := range []string{
		"config/default", "config/samples/store/s3", "config/samples/store/gcs", "config/samples/volumes/lvm", "config/samples/volumes/quota",
	} {
		t.Run(directory, func(t *testing.T) {
			g, d := NewWithT(t), render(t, directory)
			g.Expect(host(t, d.daemon, d.config.Content.WorkingArea)).To(both)
			g.Expect(host(t, d.daemon, filepath.Join(d.config.CSI.KubeletDir, "pods"))).To(both)
			host(t, d.daemon, d.config.CSI.Socket)
			host(t, d.daemon, d.config.CSI.RegistrationDir)
			for _, pod := range []corev1.PodSpec{d.daemon, d.controller} {
				if s := d.config.Storage.Filesystem; s != nil {
					host(t, pod, s.Path)
					continue
				}
				_, volume := mounted(t, pod, "/etc/ws-daemon-store")
				g.Expect(volume.Secret).To(HaveValue(HaveField("SecretName", "ws-daemon-store")))
				g.Expect(pod.Volumes).NotTo(ContainElement(HaveField("Name", "store")), "a directory of the host is not needed")
			}
			for _, class := range d.config.Volumes.Classes {
				if class.Path != "" {
					host(t, d.daemon, class.Path)
				}
				if class.Driver == config.DriverLVM {
					g.Expect(d.daemon.HostIPC).To(BeTrue())
					host(t, d.daemon, "/dev")
				}
			}
			for _, port := range d.daemon.Containers[0].Ports {
				address := map[string]string{"health": d.config.Health.Address, "metrics": d.config.Metrics.Address}[port.Name]
				g.Expect(address).To(Equal(fmt.Sprintf(":%d", port.ContainerPort)), "%s has to be reached from outside", port.Name)
			}
		})
	}
}

// The pod is what docs/security.md says it is.
func TestPodIsAsDocumented(t *testing.T) {
	g, d := NewWithT(t), render(t, "config/default")
	g.Expect(d.daemon.PriorityClassName).To(Equal("system-node-critical"))
	g.Expect(d.daemon.Tolerations).To(Equal([]corev1.Toleration{{Operator: corev1.TolerationOpExists}}))
	g.Expect([]bool{d.daemon.HostNetwork, d.daemon.HostPID, d.daemon.HostIPC}).To(Equal([]bool{false, false, false}))
	// Jobs get 30 seconds to reach a safe point, and what waits for them 10 more.
	g.Expect(time.Duration(*d.daemon.TerminationGracePeriodSeconds) * time.Second).To(BeNumerically(">", 40*time.Second))
	container := d.daemon.Containers[0]
	s := container.SecurityContext
	g.Expect(s.Privileged).To(HaveValue(BeTrue()))
	g.Expect(s.RunAsUser).To(HaveValue(BeZero()))
	g.Expect(s.ReadOnlyRootFilesystem).To(HaveValue(BeTrue()))
	g.Expect(s.SeccompProfile.Type).To(Equal(corev1.SeccompProfileTypeUnconfined))
	g.Expect([]*corev1.Probe{container.LivenessProbe, container.ReadinessProbe}).To(HaveEach(Not(BeNil())))
	g.Expect(container.Resources.Requests).To(And(HaveKey(corev1.ResourceCPU), HaveKey(corev1.ResourceMemory)))
	g.Expect(container.Resources.Limits).To(And(HaveKey(corev1.ResourceMemory), Not(HaveKey(corev1.ResourceCPU))))
}

// The token that the API server would mount by itself is good for a year; the one that pods have is good for an hour, and has the same place.
func TestTokensAreGoodForAnHour(t *testing.T) {
	d := render(t, "config/default")
	for _, pod := range []corev1.PodSpec{d.daemon, d.controller} {
		g := NewWithT(t)
		g.Expect(pod.AutomountServiceAccountToken).To(HaveValue(BeFalse()))
		mount, volume := mounted(t, pod, "/var/run/secrets/kubernetes.io/serviceaccount/token")
		g.Expect(mount.ReadOnly).To(BeTrue())
		g.Expect(volume.Projected).To(HaveValue(HaveField("Sources", ConsistOf(
			HaveField("ServiceAccountToken", HaveValue(Equal(corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(3600))}))),
			HaveField("ConfigMap", HaveValue(Equal(corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}))),
			HaveField("DownwardAPI", HaveValue(HaveField("Items", ConsistOf(HaveField("Path", "namespace"))))),
		))))
	}
}
