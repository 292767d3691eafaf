//go:build e2e

package e2e

import (
	"fmt"
	"strings"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
)

// inside is where pods have their workspace.
const inside = "/workspace"

// pod runs a shell script in a workspace, as its owner, and waits until it runs, which it does when the content is there.
func (w *world) pod(name string, ws *v1.Workspace, script string) {
	w.t.Helper()
	w.create(w.newPod(name, ws.Spec.NodeName, volume(v1.CSIAttributeWorkspace, ws.Name), script))
	w.podRuns(name, 0)
}

// volume is what the CSI driver gives for an attribute, which names a workspace.
func volume(attribute, value string) corev1.VolumeSource {
	return corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: v1.CSIDriver, VolumeAttributes: map[string]string{attribute: value}}}
}

// newPod is a pod for a node. It needs no token, and nothing of the node but its volume; nor a label, for the daemon knows what its driver
// has mounted.
func (w *world) newPod(name, node string, source corev1.VolumeSource, script string) *corev1.Pod {
	grace, who, no := int64(10), int64(owner), false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeSelector:                  map[string]string{corev1.LabelHostname: node},
			TerminationGracePeriodSeconds: &grace, AutomountServiceAccountToken: &no,
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: &who, RunAsGroup: &who},
			Containers: []corev1.Container{{
				Name: "shell", Image: nodes.ShellImage, ImagePullPolicy: corev1.PullNever,
				Command: []string{"sh", "-c", script}, WorkingDir: inside,
				VolumeMounts: []corev1.VolumeMount{{Name: "workspace", MountPath: inside}},
			}},
			Volumes: []corev1.Volume{{Name: "workspace", VolumeSource: source}},
		},
	}
}

// podRuns waits until a pod's container runs that was restarted so many times.
func (w *world) podRuns(name string, restarts int32) {
	w.t.Helper()
	var pod corev1.Pod
	w.Eventually(func() (string, error) {
		err := w.get(&pod, name)
		return containerState(&pod), err
	}).Should(Equal(fmt.Sprintf("running, restarted %d times", restarts)), func() string { return w.describe(&pod) })
	w.say("pod %s runs on %s", name, pod.Spec.NodeName)
}

func containerState(pod *corev1.Pod) string {
	if len(pod.Status.ContainerStatuses) != 1 {
		return string(pod.Status.Phase)
	}
	status := pod.Status.ContainerStatuses[0]
	if status.State.Running == nil {
		return text(status.State)
	}
	return fmt.Sprintf("running, restarted %d times", status.RestartCount)
}

// describe prints what is known of a pod.
func (w *world) describe(pod *corev1.Pod) string {
	notes, err := w.events()
	return fmt.Sprintf("%s%s\n%v", text(&pod.Status), strings.Join(notes, "\n"), err)
}

// removePod deletes a pod and waits until its containers have ended.
func (w *world) removePod(name string) {
	w.t.Helper()
	w.remove(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}})
}

// remove deletes an object and waits until it is gone.
func (w *world) remove(o client.Object) {
	w.t.Helper()
	w.Expect(client.IgnoreNotFound(env.client.Delete(w.t.Context(), o))).To(Succeed())
	w.Eventually(func() error { return w.get(o, o.GetName()) }).Should(MatchError(apierrors.IsNotFound, "not found"), func() string { return text(o) })
}

// exec runs a shell script in a pod and returns what it prints.
func (w *world) exec(pod, script string) string {
	w.t.Helper()
	out, err := w.try(pod, script)
	w.Expect(err).NotTo(HaveOccurred())
	return out
}

func (w *world) try(pod, script string) (string, error) {
	return env.kube(w.t.Context(), "", "exec", "--namespace="+w.namespace, pod, "--", "sh", "-euc", script)
}

// What pods do.
const (
	// idle does nothing, and ends when it is told to.
	idle = "trap exit TERM; " + asleep
	// asleep waits for ever, or until a trap was run.
	asleep = "sleep 2147483647 & wait"
	// write makes a tree with what is easily lost: empty directories, modes, links of both kinds, holes, times.
	write = `
		mkdir -p src/deep empty
		i=0; while [ $i -lt 40 ]; do echo "line $i" >src/deep/file-$i; i=$((i + 1)); done
		head -c 6000000 /dev/urandom >blob; ln blob src/blob-again; ln -s ../nowhere src/dangling
		chmod 4750 src/deep/file-1; chmod 1777 empty; truncate -s 20M hole
		touch -d '2001-09-09 01:46:40' src/deep/file-2; sync`
	// list describes a tree, entry by entry.
	list = `
		find . -mindepth 1 ! -type d -exec stat -c '%n %F %a %u %g %Y %s %h' {} + | sort
		find . -mindepth 1 -type d -exec stat -c '%n %F %a %u %g' {} + | sort
		find . -type l -exec readlink {} + | sort
		find . -type f -exec sha256sum {} + | sort`
	// sources describes what Git keeps of a working copy.
	sources = `
		find . -path ./.git -prune -o -type f -exec sha256sum {} + | sort
		find . -path ./.git -prune -o -type f -perm -100 -print | sort`
)
