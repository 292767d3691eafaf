package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (c Config) validate() error {
	return errors.Join(
		absolute("content.workingArea", c.Content.WorkingArea),
		c.Content.validate(),
		c.Storage.validate(),
		c.Volumes.validate(c.Content.WorkingArea),
		c.CSI.validate(c.Content.WorkingArea),
		c.Limits.validate(),
		c.Node.validate(),
		c.Service.validate(),
		address("health.address", c.Health.Address),
		c.Metrics.validate(),
		oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"),
		oneOf("log.format", c.Log.Format, "json", "console"),
		c.contradictions(),
	)
}

func (c Content) validate() error {
	return errors.Join(
		c.Backup.validate(),
		c.Timeouts.validate(),
		positive("content.strayRetention", c.StrayRetention),
		positive("content.orphanGrace", c.OrphanGrace),
		positive("content.tombstoneGrace", c.TombstoneGrace),
		atLeastAnHour("content.collect.wait", c.Collect.Wait),
		required("content.git.program", c.Git.Program),
		c.Git.validate(),
		c.Egress.validate(),
	)
}

// validate allows what a workspace may ask for.
func (b Backup) validate() error {
	const longest = 7 * 24 * time.Hour
	if d := b.Interval.Duration; d != 0 && (d < time.Second || d > longest) {
		return wrong("content.backup.interval", `must be from 1s to 7d, or "0s" for no periodic backups, not %s`, b.Interval)
	}
	return nil
}

func (g Git) validate() error {
	errs := make([]error, 0, len(g.AllowedSchemes))
	for i, scheme := range g.AllowedSchemes {
		errs = append(errs, oneOf(element("content.git.allowedSchemes", i), scheme, "https", "http", "ssh"))
	}
	return errors.Join(errs...)
}

func (l Limits) validate() error {
	return errors.Join(
		atLeast("limits.initialize", l.Initialize, 1, ""),
		atLeast("limits.backup", l.Backup, 1, ""),
		atLeast("limits.finalBackup", l.FinalBackup, 1, ""),
		atLeast("limits.maintain", l.Maintain, 1, ""),
		l.Store.validate(),
	)
}

// The least that one job needs.
const (
	minRequests = 4
	minRate     = Size(64 << 10)
	minMemory   = Size(128 << 20)
)

func (l StoreLimits) validate() error {
	return errors.Join(
		atLeast("limits.store.requests", l.Requests, minRequests, ""),
		atLeast("limits.store.memory", l.Memory, minMemory, ""),
		rate("limits.store.uploadBytesPerSecond", l.UploadBytesPerSecond),
		rate("limits.store.downloadBytesPerSecond", l.DownloadBytesPerSecond),
	)
}

func rate(key string, perSecond Size) error {
	if perSecond == 0 {
		return nil
	}
	return atLeast(key, perSecond, minRate, `, or "0" for no limit`)
}

func atLeast[N int | Size](key string, n, least N, otherwise string) error {
	if n < least {
		return wrong(key, "must be at least %v%s, not %v", least, otherwise, n)
	}
	return nil
}

func (t Timeouts) validate() error {
	return errors.Join(
		positive("content.timeouts.store", t.Store),
		positive("content.timeouts.storeTotal", t.StoreTotal),
		positive("content.timeouts.initialize", t.Initialize),
		positive("content.timeouts.backup", t.Backup),
		positive("content.timeouts.remove", t.Remove),
		positive("content.timeouts.pods", t.Pods),
		positive("content.timeouts.retryMax", t.RetryMax),
	)
}

func (m Metrics) validate() error {
	errs := []error{
		address("metrics.address", m.Address),
		absoluteIfSet("metrics.certFile", m.CertFile),
		absoluteIfSet("metrics.keyFile", m.KeyFile),
	}
	switch {
	case (m.CertFile == "") != (m.KeyFile == ""):
		errs = append(errs, wrong("metrics.certFile", "needs metrics.keyFile, and the other way round"))
	case m.CertFile != "" && (m.Address == "" || IsLoopback(m.Address)):
		errs = append(errs, wrong("metrics.certFile", "is for an address that others reach, not for %q, where there is no TLS", m.Address))
	}
	return errors.Join(errs...)
}

// IsLoopback says whether an address, host:port, can be reached from this machine only.
func IsLoopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func address(key, hostPort string) error {
	if hostPort == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return wrong(key, `must be host:port, "127.0.0.1:9090" or ":8081" for example, not %q`, hostPort)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return wrong(key, "must have a port from 1 to 65535, not %q", port)
	}
	if host != "" && host != "localhost" && net.ParseIP(host) == nil {
		return wrong(key, "must have the address of a network interface, localhost or nothing before the port, not %q", host)
	}
	return nil
}

// server checks the URL of a server. What opens it belongs into a file.
func server(key, text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return wrong(key, "must be a URL such as https://host:port") // it may have a password in it
	case u.User != nil:
		return wrong(key, "must have no user and password in it: credentials come from files")
	case u.RawQuery != "" || u.Fragment != "":
		return wrong(key, "must be a URL such as https://host:port, without ? and #")
	}
	return nil
}

func absolute(key, path string) error {
	if !filepath.IsAbs(path) {
		return wrong(key, "must be an absolute path, not %q", path)
	}
	if strings.ContainsRune(path, 0) {
		return wrong(key, "must be a path, and has a zero byte in it")
	}
	return nil
}

func absoluteIfSet(key, path string) error {
	if path == "" {
		return nil
	}
	return absolute(key, path)
}

func required(key, value string) error {
	if value == "" {
		return wrong(key, "must be set")
	}
	return nil
}

func positive(key string, d Duration) error {
	if d.Duration <= 0 {
		return wrong(key, "must be longer than 0s, not %s", d)
	}
	return nil
}

func atLeastAnHour(key string, d Duration) error {
	if d.Duration < time.Hour {
		return wrong(key, "must be at least 1h, not %s", d)
	}
	return nil
}

// element is the key of an element of a list.
func element(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

func oneOf(key, value string, allowed ...string) error {
	if !slices.Contains(allowed, value) {
		return wrong(key, "must be one of %q, not %q", allowed, value)
	}
	return nil
}
