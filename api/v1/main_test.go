package v1_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/cluster"
)

// access reaches the API server of all tests.
var access *rest.Config

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ws-daemon-api-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{Dir: dir, Log: os.Stderr})
	if err != nil {
		panic(err)
	}
	defer c.Stop()
	if err := c.InstallCRDs(ctx, "../../config/crd/bases"); err != nil {
		panic(err)
	}
	access = c.Config()
	access.QPS = -1
	return m.Run()
}

// server is the API server as one test sees it, with a namespace of its own.
type server struct {
	*WithT
	client.Client
	transport *http.Client
	namespace string
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{WithT: NewWithT(t)}
	scheme := runtime.NewScheme()
	s.Expect(corev1.AddToScheme(scheme)).To(Succeed())
	s.Expect(v1.AddToScheme(scheme)).To(Succeed())
	var err error
	s.transport, err = rest.HTTPClientFor(rest.CopyConfig(access))
	s.Expect(err).NotTo(HaveOccurred())
	s.Client, err = client.New(access, client.Options{Scheme: scheme, HTTPClient: s.transport})
	s.Expect(err).NotTo(HaveOccurred())
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "api-"}}
	s.Expect(s.Create(t.Context(), namespace)).To(Succeed())
	s.namespace = namespace.Name
	return s
}

// object returns an object of this API group from the YAML of its spec.
func (s *server) object(kind, name, spec string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	text := fmt.Sprintf("apiVersion: %s\nkind: %s\nspec: {%s}\n", v1.GroupVersion, kind, spec)
	s.Expect(yaml.Unmarshal([]byte(text), &o.Object)).To(Succeed())
	o.SetNamespace(s.namespace)
	o.SetName(name)
	return o
}

// create makes a workspace that must be accepted.
func (s *server) create(t *testing.T, name, spec string) *unstructured.Unstructured {
	t.Helper()
	o := s.object("Workspace", name, spec)
	s.Expect(s.Create(t.Context(), o)).To(Succeed())
	return o
}

// patch applies a merge patch, given as YAML, to an object.
func (s *server) patch(t *testing.T, o *unstructured.Unstructured, text string) error {
	t.Helper()
	return s.Patch(t.Context(), o.DeepCopy(), s.merge(text))
}

// patchStatus applies a merge patch, given as YAML, to the status of an object.
func (s *server) patchStatus(t *testing.T, o *unstructured.Unstructured, text string) error {
	t.Helper()
	return s.Status().Patch(t.Context(), o.DeepCopy(), s.merge("status: {"+text+"}"))
}

func (s *server) merge(text string) client.Patch {
	data, err := yaml.YAMLToJSON([]byte(text))
	s.Expect(err).NotTo(HaveOccurred())
	return client.RawPatch("application/merge-patch+json", data)
}

// verdict expects success where want is empty, else a refusal that says it.
func (s *server) verdict(err error, want string) {
	if want == "" {
		s.ExpectWithOffset(1, err).NotTo(HaveOccurred())
		return
	}
	s.ExpectWithOffset(1, err).To(MatchError(ContainSubstring(want)))
}
