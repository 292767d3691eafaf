package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// requestTimeout is the deadline of one request to the API server, watches excepted.
const requestTimeout = 30 * time.Second

// newScheme knows the objects that the daemon reads and writes.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(corev1.AddToScheme(scheme), eventsv1.AddToScheme(scheme), v1.AddToScheme(scheme))
}

// rest returns how to reach the API server.
func (o *options) rest() (*rest.Config, error) {
	if o.node == "" {
		return nil, errors.New("the node has no name: set NODE_NAME or --node")
	}
	var cfg *rest.Config
	var err error
	if o.kubeconfig != "" {
		cfg, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	} else {
		cfg, err = ctrl.GetConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	cfg.UserAgent = "ws-daemon"
	return cfg, nil
}

// newReader returns an uncached reader.
func newReader(cfg *rest.Config) (client.Reader, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	return client.New(cfg, client.Options{Scheme: scheme})
}

// clusterUID identifies a cluster by the UID of its namespace kube-system.
func clusterUID(ctx context.Context, reader client.Reader) (string, error) {
	var ns corev1.Namespace
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := reader.Get(ctx, client.ObjectKey{Name: "kube-system"}, &ns); err != nil {
		return "", fmt.Errorf("identify the cluster by its namespace kube-system: %w", err)
	}
	return string(ns.UID), nil
}

// apiVersion returns a function that asks an API server for its version, as "v1.37.2".
func apiVersion(cfg *rest.Config) (func(ctx context.Context) (string, error), error) {
	c, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		text, err := c.RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
		if err != nil {
			return "", fmt.Errorf("ask for the API server's version: %w", err)
		}
		var info apiversion.Info
		if err := json.Unmarshal(text, &info); err != nil {
			return "", fmt.Errorf("ask for the API server's version: %w", err)
		}
		return info.GitVersion, nil
	}, nil
}
