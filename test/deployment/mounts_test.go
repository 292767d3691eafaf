package deployment

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// deployed is the daemons' pod and configuration, as a kustomization makes them.
type deployed struct {
	pod    corev1.PodSpec
	daemon corev1.Container
	config config.Config
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
			d.pod = set.Spec.Template.Spec
			d.daemon = d.pod.Containers[0]
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

// mount returns how a path is mounted, and fails if it is not what the host has there under the same path.
func (d deployed) mount(t *testing.T, path string) corev1.VolumeMount {
	t.Helper()
	g := NewWithT(t)
	var found corev1.VolumeMount
	for _, m := range d.daemon.VolumeMounts {
		if (path == m.MountPath || strings.HasPrefix(path, m.MountPath+"/")) && len(m.MountPath) > len(found.MountPath) {
			found = m
		}
	}
	g.Expect(found.Name).NotTo(BeEmpty(), "%s is on no mount", path)
	for _, v := range d.pod.Volumes {
		if v.Name == found.Name {
			g.Expect(v.HostPath).NotTo(BeNil(), path)
			g.Expect(v.HostPath.Path).To(Equal(found.MountPath), path)
		}
	}
	return found
}

// Whatever the configuration names is mounted, under the path that kubelet and pods know it by, and mounts get where they have to.
func TestWhatTheConfigurationNamesIsMounted(t *testing.T) {
	both := HaveValue(Equal(corev1.MountPropagationBidirectional))
	for _, directory := range []string{
		"config/default", "config/samples/store/s3", "config/samples/store/gcs", "config/samples/volumes/lvm", "config/samples/volumes/quota",
	} {
		t.Run(directory, func(t *testing.T) {
			g, d := NewWithT(t), render(t, directory)
			g.Expect(d.mount(t, d.config.Content.WorkingArea).MountPropagation).To(both)
			g.Expect(d.mount(t, filepath.Join(d.config.CSI.KubeletDir, "pods")).MountPropagation).To(both)
			d.mount(t, d.config.CSI.Socket)
			d.mount(t, d.config.CSI.RegistrationDir)
			if s := d.config.Storage.Filesystem; s != nil {
				d.mount(t, s.Path)
			}
			for _, class := range d.config.Volumes.Classes {
				if class.Path != "" {
					d.mount(t, class.Path)
				}
				if class.Driver == config.DriverLVM {
					g.Expect(d.pod.HostIPC).To(BeTrue())
					d.mount(t, "/dev")
				}
			}
			for port, address := range map[string]string{"health": d.config.Health.Address, "metrics": d.config.Metrics.Address} {
				g.Expect(d.daemon.Ports).To(ContainElement(HaveField("Name", port)), address)
			}
		})
	}
}

// The pod is what docs/security.md says it is.
func TestPodIsAsDocumented(t *testing.T) {
	g, d := NewWithT(t), render(t, "config/default")
	g.Expect(d.pod.PriorityClassName).To(Equal("system-node-critical"))
	g.Expect(d.pod.Tolerations).To(Equal([]corev1.Toleration{{Operator: corev1.TolerationOpExists}}))
	g.Expect([]bool{d.pod.HostNetwork, d.pod.HostPID, d.pod.HostIPC}).To(Equal([]bool{false, false, false}))
	// Jobs get 30 seconds to reach a safe point, and what waits for them 10 more.
	g.Expect(time.Duration(*d.pod.TerminationGracePeriodSeconds) * time.Second).To(BeNumerically(">", 40*time.Second))
	s := d.daemon.SecurityContext
	g.Expect(s.Privileged).To(HaveValue(BeTrue()))
	g.Expect(s.RunAsUser).To(HaveValue(BeZero()))
	g.Expect(s.ReadOnlyRootFilesystem).To(HaveValue(BeTrue()))
	g.Expect(s.SeccompProfile.Type).To(Equal(corev1.SeccompProfileTypeUnconfined))
	g.Expect([]*corev1.Probe{d.daemon.LivenessProbe, d.daemon.ReadinessProbe}).To(HaveEach(Not(BeNil())))
	g.Expect(d.daemon.Resources.Requests).To(And(HaveKey(corev1.ResourceCPU), HaveKey(corev1.ResourceMemory)))
	g.Expect(d.daemon.Resources.Limits).To(And(HaveKey(corev1.ResourceMemory), Not(HaveKey(corev1.ResourceCPU))))
}
