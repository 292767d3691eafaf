//go:build e2e

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// The token of the daemon on one node is good for nothing on the other, nor for Secrets that nobody has granted.
func TestTokenOfADaemon(t *testing.T) {
	w := newWorld(t)
	w.workspace("mine", env.a, empty())
	w.workspace("other", env.b, empty())
	w.await("mine", "Running", env.a)
	w.await("other", "Running", env.b)
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "secret"}})
	token := w.token()
	w.Expect(w.lifetime(token)).To(Equal(time.Hour))
	thief := w.thief(token)

	var secrets corev1.SecretList
	w.Expect(apierrors.IsForbidden(thief.List(t.Context(), &secrets))).To(BeTrue())
	w.Expect(apierrors.IsForbidden(thief.List(t.Context(), &secrets, client.InNamespace(w.namespace)))).To(BeTrue())
	w.Expect(apierrors.IsForbidden(thief.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "secret"}, &corev1.Secret{}))).To(BeTrue())

	status := client.RawPatch("application/merge-patch+json", []byte(`{"status":{"git":{"branch":"stolen"}}}`))
	finalizers := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
	annotation := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"workspace.wsdaemon.dev/scale-down-disabled":"true"}}}`))
	workspace := func(name string) client.Object {
		return &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	}
	area := client.RawPatch("application/merge-patch+json", []byte(`{"status":{"areaID":"stolen"}}`))
	report := func(name string) client.Object { return &v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	node := func(name string) client.Object { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	w.Expect(thief.Status().Patch(t.Context(), workspace("mine"), status)).To(Succeed(), "else the test would prove nothing")
	const policy, role = "ValidatingAdmissionPolicy 'ws-daemon-", "cannot "
	for what, tt := range map[string]struct {
		err error
		by  string // who refuses it
	}{
		"status of a foreign workspace":     {thief.Status().Patch(t.Context(), workspace("other"), status), policy},
		"finalizers of a foreign workspace": {thief.Patch(t.Context(), workspace("other"), finalizers), policy},
		"foreign Node":                      {thief.Patch(t.Context(), node(env.b.Name), annotation), policy},
		"report of another node":            {thief.Status().Patch(t.Context(), report(env.b.Name), area), policy},
		"a workspace is deleted":            {thief.Delete(t.Context(), workspace("mine")), role},
		"a pod is created":                  {thief.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "p"}}), role},
	} {
		w.Expect(tt.err).To(MatchError(ContainSubstring(tt.by)), what)
	}
}

// token is what the kubelet has given to the daemon on node-a.
func (w *world) token() string {
	w.t.Helper()
	pod, err := env.kube(w.t.Context(), "", "get", "pod", "--namespace="+system, "--selector=app.kubernetes.io/name=ws-daemon",
		"--field-selector=spec.nodeName="+env.a.Name, "--output=jsonpath={.items[0].metadata.name}")
	w.Expect(err).NotTo(HaveOccurred())
	token, err := env.kube(w.t.Context(), "", "exec", "--namespace="+system, pod, "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
	w.Expect(err).NotTo(HaveOccurred())
	return token
}

// lifetime says for how long a token is good from the moment at which it was given.
func (w *world) lifetime(token string) time.Duration {
	w.t.Helper()
	parts := strings.Split(token, ".")
	w.Expect(parts).To(HaveLen(3))
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	w.Expect(err).NotTo(HaveOccurred())
	var claims struct{ Iat, Exp int64 }
	w.Expect(json.Unmarshal(raw, &claims)).To(Succeed())
	return time.Duration(claims.Exp-claims.Iat) * time.Second
}

// thief gives a client that has a token.
func (w *world) thief(token string) client.Client {
	w.t.Helper()
	config := rest.AnonymousClientConfig(env.cluster.Config())
	config.BearerToken = token
	thief, err := client.New(config, client.Options{Scheme: env.client.Scheme()})
	w.Expect(err).NotTo(HaveOccurred())
	return thief
}
