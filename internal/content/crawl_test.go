package content_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/stores/proxy"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// TestBackupsToAStoreThatCrawlsKeepNobodyWaiting has more periodic backups than may make requests at once, each of which sends a pack that
// never arrives. Another workspace starts, is written to and stops meanwhile, as often as it likes.
func TestBackupsToAStoreThatCrawlsKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	s := servers(t)["s3"]
	f := &fixture{Gomega: NewWithT(t), t: t, ctx: t.Context(), store: s.made(t)}
	p := storetest.Proxied(t, s.Endpoint)
	n := f.node("node-a")
	n.Memory = memory.New(int64(config.Default().Limits.Store.Memory))
	n.Store = store.WithLimits(store.WithPatience(s.open(t, p.URL), store.Patience{Attempt: time.Hour, Total: time.Hour}),
		store.Limits{Requests: fair.NewQueue("requests", 8)})
	var ended atomic.Int64
	var stuck sync.Map // objects: one that does not get on is sent again
	waiting := func() (n int) {
		stuck.Range(func(any, any) bool { n++; return true })
		return n
	}
	p.Break(func(r proxy.Request) proxy.Fault {
		if !r.Is(http.MethodPut, "/d/slow-") || !strings.Contains(r.Target, "/p/") {
			return proxy.Fault{}
		}
		stuck.Store(r.Target, true)
		return proxy.Fault{Delay: time.Hour}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const count = 12
	for i := range count {
		slow := content.Subject{UID: fmt.Sprint("uid-slow-", i), Namespace: fmt.Sprint("slow-", i), Name: "web", Class: "default", Claim: 1}
		f.Expect(n.tryFill(content.FillRequest{Subject: slow, InUse: idle})).To(Succeed())
		file := filepath.Join(n.Volumes["default"].Path(slow.UID, volume.Published), "file")
		f.Expect(os.WriteFile(file, []byte("content"), 0o600)).To(Succeed())
		go func() {
			_ = n.Backup(ctx, content.SaveRequest{Subject: slow})
			ended.Add(1)
		}()
	}
	f.Eventually(waiting, "60s").Should(BeEquivalentTo(6), "as many as periodic backups may have")

	for claim := range int64(3) {
		n.fill(claim + 1)
		n.write("file", fmt.Sprint("version ", claim))
		f.Expect(n.release(claim + 1)).To(Equal(fmt.Sprintf("%d.1", claim+1)))
		n.remove(claim + 1)
	}
	f.Expect(waiting()).To(BeEquivalentTo(6), "none of them has moved")
	f.Expect(ended.Load()).To(BeZero())
	cancel()
	f.Eventually(ended.Load, "60s").Should(BeEquivalentTo(count))
}
