package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// requestTimeout bounds one look at a program that is starting.
const requestTimeout = 5 * time.Second

// AddUser writes a kubeconfig for a user in the given groups and returns its path and the same access as an object.
// What the user may do is decided by RBAC. The name must be good for a file name.
func (c *Cluster) AddUser(name string, groups ...string) (path string, config *rest.Config, err error) {
	path = c.path("kubeconfig-" + name)
	config, err = c.newUser(path, name, groups...)
	return path, config, err
}

func (c *Cluster) newUser(path, name string, groups ...string) (*rest.Config, error) {
	cert, err := c.ca.user(name, groups)
	if err != nil {
		return nil, err
	}
	return c.writeAccess(path, name, &api.AuthInfo{ClientCertificateData: cert.cert, ClientKeyData: cert.key})
}

// writeAccess writes a kubeconfig for whoever can show what auth says.
func (c *Cluster) writeAccess(path, name string, auth *api.AuthInfo) (*rest.Config, error) {
	kubeconfig := api.Config{
		Clusters: map[string]*api.Cluster{"dev": {
			Server:                   url("https", c.ports.api),
			CertificateAuthorityData: c.ca.pem,
		}},
		AuthInfos:      map[string]*api.AuthInfo{name: auth},
		Contexts:       map[string]*api.Context{"dev": {Cluster: "dev", AuthInfo: name}},
		CurrentContext: "dev",
	}
	if err := clientcmd.WriteToFile(kubeconfig, path); err != nil {
		return nil, fmt.Errorf("write kubeconfig of %s: %w", name, err)
	}
	config, err := clientcmd.NewDefaultClientConfig(kubeconfig, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig of %s: %w", name, err)
	}
	return config, nil
}

func checkEtcd(ctx context.Context, server string) error {
	return get(ctx, &http.Client{Timeout: requestTimeout}, server+"/health")
}

// checkAPI succeeds only for our own API server: another one's certificate is of another authority.
func (c *Cluster) checkAPI(ctx context.Context) error {
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return fmt.Errorf("create client: %w", err)
	}
	defer client.CloseIdleConnections()
	client.Timeout = requestTimeout
	return get(ctx, client, c.config.Host+"/readyz")
}

func get(ctx context.Context, client *http.Client, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", address, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("get %s: %w", address, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 2048))
	return fmt.Errorf("get %s: %s: %s", address, response.Status, body)
}
