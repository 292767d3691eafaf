package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"wsdaemon.dev/ws-daemon/hack/process"
)

var crdResource = apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")

// InstallCRDs creates or updates the CustomResourceDefinitions of the YAML files in dir (one in a file) and returns when
// their objects can be used.
func (c *Cluster) InstallCRDs(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return fmt.Errorf("install CRDs: %w", err)
	}
	if len(files) == 0 {
		return fmt.Errorf("install CRDs: no *.yaml in %s: run `make manifests`", dir)
	}
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("install CRDs: %w", err)
	}
	names := make([]string, 0, len(files))
	for _, file := range files {
		name, err := installCRD(ctx, client, file)
		if err != nil {
			return fmt.Errorf("install CRDs: %s: %w", file, err)
		}
		names = append(names, name)
	}
	return c.WaitCRDs(ctx, names...)
}

func installCRD(ctx context.Context, client dynamic.Interface, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(text, &crd.Object); err != nil {
		return "", err
	}
	options := metav1.ApplyOptions{FieldManager: "hack-cluster", Force: true}
	_, err = client.Resource(crdResource).Apply(ctx, crd.GetName(), crd, options)
	return crd.GetName(), err
}

// WaitCRDs returns when the named CustomResourceDefinitions are established and their objects can be listed. Both are
// needed: the API server begins to answer for a type about a second after it calls it established.
func (c *Cluster) WaitCRDs(ctx context.Context, names ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("wait for CRDs: %w", err)
	}
	for _, name := range names {
		for {
			err := crdReady(ctx, client, name)
			if err == nil {
				break
			}
			if process.Pause(ctx, pollInterval) != nil {
				return fmt.Errorf("wait for CRD %s: %w", name, err)
			}
		}
	}
	return nil
}

func crdReady(ctx context.Context, client dynamic.Interface, name string) error {
	object, err := client.Resource(crdResource).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &crd); err != nil {
		return err
	}
	if !established(&crd) {
		return fmt.Errorf("not established: %+v", crd.Status.Conditions)
	}
	for _, version := range crd.Spec.Versions {
		resource := schema.GroupVersionResource{Group: crd.Spec.Group, Version: version.Name, Resource: crd.Spec.Names.Plural}
		if _, err := client.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
			return err
		}
	}
	return nil
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	for _, condition := range crd.Status.Conditions {
		if condition.Type == apiextensionsv1.Established {
			return condition.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}
