package cluster

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"
)

// tokenLife is how long tokens are good for: longer than anything here runs.
const tokenLife = 24 * time.Hour

// AddPod makes a pod on a node, which nothing runs, with a service account, which is made if it is missing. It writes a kubeconfig
// with the token that such a pod gets, bound to it and naming its node, and returns its path and the same access as an object. With
// no node, the token is bound to no pod.
func (c *Cluster) AddPod(ctx context.Context, namespace, account, name, node string) (path string, config *rest.Config, err error) {
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return "", nil, fmt.Errorf("add pod %s: %w", name, err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(tokenLife.Seconds()))}}
	if err := makeAccount(ctx, client, namespace, account); err != nil {
		return "", nil, fmt.Errorf("add pod %s: %w", name, err)
	}
	if node != "" {
		request.Spec.BoundObjectRef, err = makePod(ctx, client, namespace, account, name, node)
		if err != nil {
			return "", nil, fmt.Errorf("add pod %s: %w", name, err)
		}
	}
	request, err = client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", nil, fmt.Errorf("add pod %s: %w", name, err)
	}
	path = c.path("kubeconfig-" + name)
	config, err = c.writeAccess(path, name, &api.AuthInfo{Token: request.Status.Token})
	return path, config, err
}

func makeAccount(ctx context.Context, client *kubernetes.Clientset, namespace, account string) error {
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err == nil || apierrors.IsAlreadyExists(err) {
		_, err = client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	}
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func makePod(ctx context.Context, client *kubernetes.Clientset, namespace, account, name, node string) (*authenticationv1.BoundObjectReference, error) {
	pod, err := client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, NodeName: node,
			Containers: []corev1.Container{{Name: "nothing", Image: "nothing"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}, nil
}
