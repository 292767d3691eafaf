package bucket

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// Address is the place of a store: SCHEME://BUCKET/PREFIX?SETTING=VALUE. It never holds a secret.
type Address struct {
	Bucket string
	// Prefix of all keys, without slashes at its ends; empty is the whole bucket.
	Prefix string
	// Settings by name, as the driver defines them.
	Settings map[string]string
}

// ParseAddress reads a URL whose settings are among those named. Its errors do not repeat what it says: it may hold a secret by mistake.
func ParseAddress(u *url.URL, settings ...string) (Address, error) {
	a := Address{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Settings: map[string]string{}}
	switch {
	case u.User != nil:
		return a, errors.New("credentials do not belong into the URL of a store, which appears in messages")
	case u.Host == "" || u.Port() != "" || u.Opaque != "" || u.Fragment != "":
		return a, fmt.Errorf("the URL of a store has a bucket and a prefix: write %s://bucket/prefix", u.Scheme)
	case a.Prefix != "" && store.CheckKey(a.Prefix) != nil:
		return a, fmt.Errorf("the prefix of a store %w", store.CheckKey(a.Prefix))
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return a, fmt.Errorf("the settings in the URL of a store cannot be parsed: write %s://bucket/prefix?setting=value", u.Scheme)
	}
	for name, given := range values {
		if !slices.Contains(settings, name) || len(given) != 1 {
			return a, fmt.Errorf("the URL of a %s:// store knows the settings %s, each once", u.Scheme, strings.Join(settings, ", "))
		}
		a.Settings[name] = given[0]
	}
	return a, nil
}

// URL returns the address as [ParseAddress] reads it.
func (a Address) URL(scheme string) string {
	values := url.Values{}
	for name, value := range a.Settings {
		if value != "" {
			values.Set(name, value)
		}
	}
	u := url.URL{Scheme: scheme, Host: a.Bucket, RawQuery: values.Encode()}
	if a.Prefix != "" {
		u.Path = "/" + a.Prefix
	}
	return u.String()
}

// Endpoint returns the server in the setting "endpoint", or the one that is used without it. Nothing but host and port may be said of it.
func (a Address) Endpoint(without string) (*url.URL, error) {
	u, err := url.Parse(cmp.Or(a.Settings["endpoint"], without))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the endpoint of a store is a scheme, a host and maybe a port: write endpoint=https://host:port")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// File returns the absolute path in a setting, or nothing if it is not set.
func (a Address) File(setting string) (string, error) {
	path := a.Settings[setting]
	if path != "" && !filepath.IsAbs(path) {
		return "", fmt.Errorf("the setting %s of a store must be an absolute path, not %q", setting, path)
	}
	return path, nil
}
