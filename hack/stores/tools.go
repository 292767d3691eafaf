package stores

import (
	"context"
	"io"

	"wsdaemon.dev/ws-daemon/hack/tools"
)

func versitygw() tools.Tool {
	return tools.Tool{Name: "versitygw", In: "stores", Module: "github.com/versity/versitygw", Package: "github.com/versity/versitygw/cmd/versitygw"}
}

func fakeGCS() tools.Tool {
	return tools.Tool{Name: "fake-gcs-server", In: "stores", Module: "github.com/fsouza/fake-gcs-server", Package: "github.com/fsouza/fake-gcs-server"}
}

// Build makes sure that the programs are there, which takes some minutes the first time. Progress goes to log.
func Build(ctx context.Context, log io.Writer) error {
	for _, t := range []tools.Tool{versitygw(), fakeGCS()} {
		if _, err := t.Build(ctx, log); err != nil {
			return err
		}
	}
	return nil
}
