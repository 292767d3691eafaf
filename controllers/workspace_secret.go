package controllers

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// The keys of Secrets of initializers, besides those that Kubernetes names.
const (
	keyToken  = "token"
	keyBearer = "bearerToken"
	keyHosts  = "known_hosts"
)

// credentials returns a function that reads the Secret of an initializer, at the moment it is needed and uncached.
func (r *WorkspaceReconciler) credentials(ws *v1.Workspace, ref *v1.SecretReference, url string) func(context.Context) (*initializer.Credentials, error) {
	if ref == nil {
		return nil
	}
	return func(ctx context.Context) (*initializer.Credentials, error) {
		var secret corev1.Secret
		name := ws.Namespace + "/" + ref.Name
		err := r.Reader.Get(ctx, types.NamespacedName{Namespace: ws.Namespace, Name: ref.Name}, &secret)
		switch {
		case apierrors.IsNotFound(err):
			return nil, &secretError{fmt.Sprintf("there is no Secret %s: create it with %s", name, wantedKeys(url))}
		case apierrors.IsForbidden(err):
			return nil, &secretError{fmt.Sprintf("the daemon may not read Secret %s: grant it get on this Secret by a Role in the namespace", name)}
		case err != nil:
			return nil, err
		}
		return credentialsOf(name, url, secret.Data)
	}
}

// wantedKeys says what a Secret for a URL has to have.
func wantedKeys(url string) string {
	if forSSH(url) {
		return "the keys " + corev1.SSHAuthPrivateKey + " and " + keyHosts
	}
	return "the keys username and password, or " + keyToken + ", or " + keyBearer
}

func forSSH(url string) bool { return strings.HasPrefix(url, "ssh:") }

// credentialsOf takes what a URL needs out of a Secret. Its errors name the Secret and the key that is wrong, and never a value.
func credentialsOf(name, url string, data map[string][]byte) (*initializer.Credentials, error) {
	if forSSH(url) {
		return keyOf(name, data)
	}
	for _, key := range []string{keyToken, keyBearer, corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey} {
		if bytes.ContainsAny(data[key], "\r\n\x00") {
			return nil, &secretError{fmt.Sprintf("the key %s of Secret %s has a line break in it: write the value without one", key, name)}
		}
	}
	if token := data[keyToken]; len(token) > 0 {
		return &initializer.Credentials{Username: "x-access-token", Password: string(token)}, nil
	}
	if bearer := data[keyBearer]; len(bearer) > 0 {
		return &initializer.Credentials{Bearer: string(bearer)}, nil
	}
	username, password := data[corev1.BasicAuthUsernameKey], data[corev1.BasicAuthPasswordKey]
	switch {
	case len(username) > 0 && len(password) > 0:
		return &initializer.Credentials{Username: string(username), Password: string(password)}, nil
	case len(username) > 0:
		return nil, lacking(name, corev1.BasicAuthPasswordKey, "it has "+corev1.BasicAuthUsernameKey+" alone")
	case len(password) > 0:
		return nil, lacking(name, corev1.BasicAuthUsernameKey, "it has "+corev1.BasicAuthPasswordKey+" alone; a token goes under the key "+keyToken)
	}
	return nil, &secretError{fmt.Sprintf("Secret %s has no key that this URL can use: add %s", name, wantedKeys(url))}
}

// keyOf takes a key for ssh, and the hosts that it is good for.
func keyOf(name string, data map[string][]byte) (*initializer.Credentials, error) {
	key, hosts := data[corev1.SSHAuthPrivateKey], data[keyHosts]
	switch {
	case len(key) == 0:
		return nil, lacking(name, corev1.SSHAuthPrivateKey, "a URL of ssh needs "+wantedKeys("ssh:"))
	case len(hosts) == 0:
		return nil, lacking(name, keyHosts, "add the lines that ssh-keyscan prints, once you know that they are right")
	}
	return &initializer.Credentials{Key: string(key), KnownHosts: string(hosts)}, nil
}

func lacking(secret, key, more string) error {
	return &secretError{fmt.Sprintf("Secret %s lacks the key %s: %s", secret, key, more)}
}
