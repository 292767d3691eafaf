package s3

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

// errNoCredentials says that nothing was found where credentials were looked for.
var errNoCredentials = errors.New("there are no credentials for the store")

// credentialsOf returns where the credentials of a store come from. They are read when the first request is made.
func credentialsOf(a bucket.Address) (*credentials.Credentials, error) {
	dir, dirErr := a.File("credentials-dir")
	file, fileErr := a.File("credentials-file")
	kind, profile := a.Settings["credentials"], a.Settings["profile"]
	switch {
	case dirErr != nil || fileErr != nil:
		return nil, errors.Join(dirErr, fileErr)
	case kind != "" && kind != "environment":
		return nil, errors.New(`the setting credentials of a store is "environment", or not set`)
	case kind != "" && dir != "", kind != "" && file != "", dir != "" && file != "", profile != "" && file == "":
		return nil, errors.New("a store has one kind of credentials: credentials=environment, credentials-dir, or credentials-file with a profile")
	case kind != "":
		return found(&credentials.EnvAWS{}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), nil
	case dir != "":
		return found(rereads(&directory{path: dir}, directoryFiles(dir)...), "mount the Secret at "+dir), nil
	case file != "":
		inner := &credentials.FileAWSCredentials{Filename: file, Profile: profile}
		return found(rereads(inner, file), "write them into "+file), nil
	}
	return found(&credentials.Chain{Providers: []credentials.Provider{
		&credentials.EnvAWS{},
		rereads(&credentials.FileAWSCredentials{}, homeFile()),
		&credentials.IAM{},
	}}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the storage credentials in the configuration"), nil
}

// homeFile is where the AWS tools keep credentials.
func homeFile() string {
	if path := os.Getenv("AWS_SHARED_CREDENTIALS_FILE"); path != "" {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".aws", "credentials")
}

// found refuses to go on without credentials: requests would be anonymous.
func found(p credentials.Provider, advice string) *credentials.Credentials {
	return credentials.New(&needed{Provider: p, advice: advice})
}

type needed struct {
	credentials.Provider
	advice string
	had    bool // there were some before
}

// RetrieveWithCredContext is called by one at a time. Where there were credentials before, whoever issues them may be away for a moment when
// they are to be renewed: that is worth another attempt.
func (n *needed) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	value, err := n.Provider.RetrieveWithCredContext(cc)
	switch {
	case err != nil:
		err = fmt.Errorf("read the credentials of the store: %w", err)
	case value.AccessKeyID == "" || value.SecretAccessKey == "":
		err = errNoCredentials
	default:
		n.had = true
		return value, nil
	}
	if n.had {
		return value, fmt.Errorf("%w: %s", err, n.advice)
	}
	return value, &store.RefusedError{Err: err, Advice: n.advice}
}

// rereads has a provider read its files again when one of them changes.
func rereads(p credentials.Provider, files ...string) credentials.Provider {
	return &rereading{Provider: p, files: files}
}

type rereading struct {
	credentials.Provider
	files []string
	stamp string
}

// RetrieveWithCredContext reads until nothing has changed meanwhile: a key and the secret of another one are of no use.
func (r *rereading) RetrieveWithCredContext(cc *credentials.CredContext) (value credentials.Value, err error) {
	for range 3 {
		r.stamp = bucket.Stamp(r.files...)
		value, err = r.Provider.RetrieveWithCredContext(cc)
		if bucket.Stamp(r.files...) == r.stamp {
			break
		}
	}
	return value, err
}

func (r *rereading) IsExpired() bool {
	return r.Provider.IsExpired() || bucket.Stamp(r.files...) != r.stamp
}

// directory reads the files of a mounted Secret.
type directory struct {
	path string
	read bool
}

func directoryFiles(dir string) []string {
	return []string{filepath.Join(dir, "access-key-id"), filepath.Join(dir, "secret-access-key"), filepath.Join(dir, "session-token")}
}

func (d *directory) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return d.Retrieve()
}

func (d *directory) Retrieve() (credentials.Value, error) {
	var parts [3]string
	for i, file := range directoryFiles(d.path) {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && i == 2 {
			continue
		}
		if err != nil {
			return credentials.Value{}, err
		}
		parts[i] = strings.TrimSpace(string(data))
	}
	d.read = true
	return credentials.Value{
		AccessKeyID: parts[0], SecretAccessKey: parts[1], SessionToken: parts[2], SignerType: credentials.SignatureV4,
	}, nil
}

func (d *directory) IsExpired() bool { return !d.read }
