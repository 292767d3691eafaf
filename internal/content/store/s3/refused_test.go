package s3_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/stores"
	"wsdaemon.dev/ws-daemon/hack/stores/proxy"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/s3"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// patience would repeat for a minute what is not final.
func patience() store.Patience { return store.Patience{Attempt: 10 * time.Second, Total: time.Minute} }

// refusal calls a store in the ways that begin everything, and returns the advice that comes with the errors.
func refusal(t *testing.T, s store.Store) string {
	t.Helper()
	g, ctx := NewWithT(t), t.Context()
	s = store.WithPatience(s, patience())
	_, identityErr := store.Identity(ctx, s)
	_, listErr := s.List(ctx, "d/", "", 1)
	_, nowErr := s.Now(ctx)
	_, initErr := store.Init(ctx, s)
	var refused *store.RefusedError
	for name, err := range map[string]error{"identity": identityErr, "list": listErr, "now": nowErr, "init": initErr} {
		g.Expect(errors.As(err, &refused)).To(BeTrue(), "%s: %v", name, err)
		g.Expect(err).NotTo(MatchError(store.ErrNotFound), "S10")
		g.Expect(err).NotTo(MatchError(store.ErrNotInitialized), "S10")
		g.Expect(err).NotTo(MatchError(ContainSubstring(stores.SecretKey)), "S8")
	}
	return refused.Advice
}

func TestS3RefusalsSayWhatToDo(t *testing.T) {
	admin := "credentials-dir=" + secret(t, stores.AccessKey, stores.SecretKey)
	parse := func(text string) store.Store {
		u, err := url.Parse(text)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		s, err := s3.Open(u)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		return s
	}
	for name, c := range map[string]struct {
		store store.Store
		want  string
	}{
		"wrong bucket": {parse("s3://nothing-here/p?endpoint=" + server.Endpoint + "&" + admin), "there is no bucket nothing-here: create it"},
		"wrong region": {open(t, "", admin, "region=eu-west-1"), "the bucket is not in the region eu-west-1: set "},
		"wrong key":    {open(t, "", "credentials-dir="+secret(t, "nobody", "secret")), "the credentials are wrong or have expired: replace them"},
		"wrong secret": {open(t, "", "credentials-dir="+secret(t, stores.AccessKey, "secret")), "the credentials are wrong or have expired: replace them"},
		"no directory": {open(t, "", "credentials-dir=/nowhere"), "mount the Secret at /nowhere"},
		"empty key":    {open(t, "", "credentials-dir="+secret(t, "", "")), "mount the Secret at "},
		"no file":      {open(t, "", "credentials-file=/nowhere"), "write them into /nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(refusal(t, c.store)).To(HavePrefix(c.want))
		})
	}
}

func TestS3EnvironmentHasNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"} {
		t.Setenv(name, "")
	}
	advice := refusal(t, open(t, "", "credentials=environment"))
	NewWithT(t).Expect(advice).To(Equal("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"))
}

// Servers of which there is none among the tests say more.
func TestS3AnswersOfOtherServers(t *testing.T) {
	xml := func(code, more string) string {
		return "<Error><Code>" + code + "</Code><Message>no</Message>" + more + "</Error>"
	}
	for name, c := range map[string]struct {
		fault proxy.Fault
		want  string
	}{
		"clock skew":      {proxy.Fault{Answer: 403, Body: xml("RequestTimeTooSkewed", "")}, "the clocks differ: it is "},
		"expired token":   {proxy.Fault{Answer: 400, Body: xml("ExpiredToken", "")}, "the credentials are wrong or have expired"},
		"another region":  {proxy.Fault{Answer: 400, Body: xml("AuthorizationHeaderMalformed", "<Region>eu-north-1</Region>")}, "the bucket is not in the region us-east-1: set region to eu-north-1"},
		"redirected":      {proxy.Fault{Answer: 301, Body: xml("PermanentRedirect", "<Endpoint>elsewhere</Endpoint>")}, "the bucket is not in the region us-east-1: set the region it is in"},
		"full":            {proxy.Fault{Answer: 507, Body: xml("XMinioStorageFull", "")}, "the store is full: give it more room"},
		"quota":           {proxy.Fault{Answer: 403, Body: xml("QuotaExceeded", "")}, "the store is full: give it more room"},
		"not implemented": {proxy.Fault{Answer: 501, Body: xml("NotImplemented", "")}, "the store cannot do what is needed: use one of the tested stores"},
		"unauthorized":    {proxy.Fault{Answer: 401, Body: xml("Unauthorized", "")}, "the credentials are wrong or have expired: replace them"},
		"denied":          {proxy.Fault{Answer: 403, Body: xml("AccessDenied", "")}, "allow these credentials s3:ListBucket on the bucket ws-daemon"},
	} {
		t.Run(name, func(t *testing.T) {
			p := storetest.Proxied(t, server.Endpoint)
			p.Break(func(proxy.Request) proxy.Fault { return c.fault })
			s := open(t, p.URL, "credentials-dir="+secret(t, stores.AccessKey, stores.SecretKey))
			NewWithT(t).Expect(refusal(t, s)).To(HavePrefix(c.want))
		})
	}
}

// Credentials that are replaced are used at once, also when the store has refused the old ones.
func TestS3CredentialsAreReadAgain(t *testing.T) {
	for name, c := range map[string]struct {
		settings func(dir string) string
		write    func(dir, key, value string) error
	}{
		"directory": {
			func(dir string) string { return "credentials-dir=" + dir },
			func(dir, key, value string) error {
				return errors.Join(
					os.WriteFile(filepath.Join(dir, "access-key-id"), []byte(key), 0o600),
					os.WriteFile(filepath.Join(dir, "secret-access-key"), []byte(value), 0o600))
			},
		},
		"mounted Secret": {
			func(dir string) string { return "credentials-dir=" + dir },
			mountSecret,
		},
		"file": {
			func(dir string) string {
				return "credentials-file=" + filepath.Join(dir, "credentials") + "&profile=backups"
			},
			func(dir, key, value string) error {
				text := "[backups]\naws_access_key_id = " + key + "\naws_secret_access_key = " + value + "\n"
				return os.WriteFile(filepath.Join(dir, "credentials"), []byte(text), 0o600)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, ctx, dir := NewWithT(t), t.Context(), t.TempDir()
			g.Expect(c.write(dir, stores.AccessKey, "expired")).To(Succeed())
			s := open(t, "", c.settings(dir))
			g.Expect(refusal(t, s)).To(HavePrefix("the credentials are wrong or have expired"))
			g.Expect(c.write(dir, stores.AccessKey, stores.SecretKey)).To(Succeed())
			_, err := store.Init(ctx, s)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(s.Put(ctx, "key", []byte("x"))).To(Succeed())
			g.Expect(c.write(dir, "somebody-else", "unknown")).To(Succeed())
			g.Expect(s.Get(ctx, "key", 10)).Error().To(MatchError(ContainSubstring("the credentials are wrong or have expired")))
			g.Expect(c.write(dir, stores.AccessKey, stores.SecretKey)).To(Succeed())
			g.Expect(s.Get(ctx, "key", 10)).To(Equal([]byte("x")))
		})
	}
}

// Credentials that are rotated while requests are under way, from one valid account to another and back, let none of them fail.
func TestS3CredentialsRotateUnderLoad(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	const everything = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": ["USER"]}, "Action": ["s3:*"],
		"Resource": ["arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/PREFIX/*"]}]}`
	user(t, "second", everything)
	dir := t.TempDir()
	g.Expect(mountSecret(dir, stores.AccessKey, stores.SecretKey)).To(Succeed())
	s := open(t, "", "credentials-dir="+dir)
	g.Expect(store.Init(ctx, s)).Error().NotTo(HaveOccurred())
	var group sync.WaitGroup
	rotated := make(chan struct{})
	for w := range 6 {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-rotated:
					return
				default:
				}
				key := fmt.Sprintf("load-%d-%d", w, i) // versitygw makes and removes directories for slashes, which is another race
				g.Expect(s.Put(ctx, key, []byte(key))).To(Succeed())
				g.Expect(s.Get(ctx, key, 100)).To(BeEquivalentTo(key))
				g.Expect(s.Delete(ctx, key)).To(Succeed())
			}
		})
	}
	for i := range 20 {
		account := []string{"second", "second-secret", stores.AccessKey, stores.SecretKey}[2*(i%2):]
		g.Expect(mountSecret(dir, account[0], account[1])).To(Succeed())
		g.Expect(s.List(ctx, "nothing/", "", 0)).To(BeEmpty())
	}
	close(rotated)
	group.Wait()
}

// mountSecret writes credentials like a kubelet: all files change at once, by one rename of a link.
func mountSecret(dir, key, value string) error {
	version, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	errs := []error{os.Symlink(filepath.Base(version), filepath.Join(dir, "..data_tmp"))}
	for name, content := range map[string]string{"access-key-id": key, "secret-access-key": value} {
		errs = append(errs, os.WriteFile(filepath.Join(version, name), []byte(content), 0o600))
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))...)
}

func TestS3CredentialsFromTheEnvironment(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", stores.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", stores.SecretKey)
	for _, settings := range []string{"credentials=environment", ""} {
		_, err := store.Init(t.Context(), open(t, "", settings))
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	}
}

// A store that confirms another checksum than it was sent is not trusted.
func TestS3StoreThatCorrupts(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	p := storetest.Proxied(t, server.Endpoint)
	s := store.WithPatience(open(t, p.URL, "credentials-dir="+secret(t, stores.AccessKey, stores.SecretKey)), patience())
	g.Expect(store.Init(ctx, s)).Error().NotTo(HaveOccurred())
	p.Break(func(r proxy.Request) proxy.Fault {
		return map[bool]proxy.Fault{true: {Header: http.Header{"X-Amz-Checksum-Crc32c": {"AAAAAA=="}}}}[r.Is("PUT", "key")]
	})
	err := s.Put(ctx, "key", []byte("data"))
	g.Expect(err).To(MatchError(ContainSubstring(`put key into ` + s.String() + `: the store has other bytes than it was given: their CRC32C is "AAAAAA=="`)))
	g.Expect(err).To(MatchError(ContainSubstring("what it holds cannot be trusted")))
}

// Whoever issues credentials may be away when they are to be renewed: that passes.
func TestS3CredentialsThatAreAwayForAMoment(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	dir := secret(t, stores.AccessKey, stores.SecretKey)
	s := open(t, "", "credentials-dir="+dir)
	g.Expect(store.Init(ctx, s)).Error().NotTo(HaveOccurred())
	g.Expect(os.Rename(dir, dir+".away")).To(Succeed())
	_, err := s.Stat(ctx, "key")
	g.Expect(err).To(MatchError(And(ContainSubstring("read the credentials of the store"), ContainSubstring("mount the Secret at "+dir))))
	var refused *store.RefusedError
	g.Expect(errors.As(err, &refused)).To(BeFalse(), "it is tried again")
	g.Expect(os.Rename(dir+".away", dir)).To(Succeed())
	_, err = s.Stat(ctx, "key")
	g.Expect(err).To(MatchError(store.ErrNotFound))
}

// A listing that names an object twice, or goes back, is not believed: retention would count it twice, and a long listing would never end.
func TestS10_S3ListingsThatLie(t *testing.T) {
	page := func(keys ...string) string {
		text := "<ListBucketResult><IsTruncated>false</IsTruncated>"
		for _, key := range keys {
			text += "<Contents><Key>" + key + "</Key><LastModified>2026-11-27T03:00:00.000Z</LastModified><Size>1</Size></Contents>"
		}
		return text + "</ListBucketResult>"
	}
	const disorder = "which is not in order: the store does not list as is needed"
	for name, c := range map[string]struct {
		keys []string
		want string
	}{
		"twice":                  {[]string{"lies/d/a", "lies/d/a"}, disorder},
		"backwards":              {[]string{"lies/d/b", "lies/d/a"}, disorder},
		"not what comes after":   {[]string{"lies/d/0", "lies/d/a"}, disorder},
		"what is somewhere else": {[]string{"lies/e/a"}, `its listing of "lies/d/" has "lies/e/a": the store does not list as is needed`},
	} {
		t.Run(name, func(t *testing.T) {
			g, ctx := NewWithT(t), t.Context()
			p := storetest.Proxied(t, server.Endpoint)
			u, err := url.Parse("s3://" + stores.Bucket + "/lies?endpoint=" + p.URL + "&credentials-dir=" + secret(t, stores.AccessKey, stores.SecretKey))
			g.Expect(err).NotTo(HaveOccurred())
			s, err := s3.Open(u)
			g.Expect(err).NotTo(HaveOccurred())
			p.Break(func(proxy.Request) proxy.Fault { return proxy.Fault{Answer: 200, Body: page(c.keys...)} })
			_, err = s.List(ctx, "d/", "d/0", 0)
			g.Expect(err).To(MatchError(ContainSubstring(c.want)))
		})
	}
}
