package nodes

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Run runs a shell script as root in the machine and returns what it prints; its failure is an error that has it, too.
func (n *Node) Run(ctx context.Context, script string) (string, error) {
	out, err := n.call(ctx, script)
	if err != nil {
		err = fmt.Errorf("run %q on %s: %w: %s", script, n.Name, err, out)
	}
	return out, err
}

func (n *Node) call(ctx context.Context, script string) (string, error) {
	address := "http://" + here(n.ports.agent) + "/?" + url.Values{"script": {script}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, http.NoBody)
	if err != nil {
		return "", err
	}
	// The machine's power may be cut: no connection is good for a second request.
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	out, err := io.ReadAll(response.Body)
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, err
	}
	if code := response.Trailer.Get("Exit"); code != "0" {
		return text, fmt.Errorf("exit status %s", code)
	}
	return text, nil
}
