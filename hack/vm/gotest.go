package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/hack/repository"
)

// TestOptions say which tests run, and where.
type TestOptions struct {
	Options
	// Packages whose tests run.
	Packages []Package
	// Args go to the test programs, as in -test.v.
	Args []string
	// Timeout of one test program.
	Timeout time.Duration
	// Long says whether tests that take long run as well.
	Long bool
}

// Test builds the tests of packages, and runs each once on every disk. Below Results, it writes cover.out, the statements
// that were executed in all of them. It gives an error if a test fails.
func (i *Image) Test(ctx context.Context, o TestOptions) error {
	o.Options = o.withDefaults()
	return i.withInput(ctx, &o, func() error {
		results, err := i.Run(ctx, o.Options, testJobs(o))
		failed := report(o.Output, results)
		return errors.Join(failed, err, mergeCoverage(results, filepath.Join(o.Results, "cover.out")))
	})
}

// TestShell boots a machine with a shell, in which the tests lie as Test has them.
func (i *Image) TestShell(ctx context.Context, o TestOptions) error {
	o.Options = o.withDefaults()
	return i.withInput(ctx, &o, func() error { return i.Shell(ctx, o.Options) })
}

// withInput fills a directory with the working tree and the test programs, for the time of a call.
func (i *Image) withInput(ctx context.Context, o *TestOptions, do func() error) error {
	root, err := repository.Root()
	if err != nil {
		return err
	}
	dir, done, err := i.cache.newRun(ctx, o.Log)
	if err != nil {
		return err
	}
	defer done()
	if err := copySource(root, filepath.Join(dir, "src")); err != nil {
		return fmt.Errorf("copy the working tree: %w", err)
	}
	start := time.Now()
	for _, p := range o.Packages {
		if err := p.build(ctx, root, filepath.Join(dir, "bin"), o.tags()); err != nil {
			return err
		}
	}
	say(o.Log, "built the tests of %d packages in %s", len(o.Packages), since(start))
	o.Input = dir
	if slices.ContainsFunc(o.Packages, func(p Package) bool { return p.Cluster }) {
		return i.withCluster(ctx, o, root, dir, do)
	}
	return do()
}

// tags are those that all tests are built with.
func (o TestOptions) tags() string {
	if o.Long {
		return buildTag + "," + longTag
	}
	return buildTag
}

// build builds the test programs of a package: test, with coverage, and test.TAGS.
func (p Package) build(ctx context.Context, root, bin, tags string) error {
	out := filepath.Join(bin, filepath.FromSlash(p.Path), "test")
	if err := goTest(ctx, root, p.Path, "-tags", tags, "-cover", "-covermode=atomic", "-o", out); err != nil {
		return err
	}
	if _, err := os.Stat(out); err != nil {
		return fmt.Errorf("build tests of %s: it has none: %w", p.Path, err)
	}
	for _, more := range p.Tags {
		if err := goTest(ctx, root, p.Path, "-tags", tags+","+more, "-o", out+"."+more); err != nil {
			return err
		}
	}
	return nil
}

// goTest builds a static test program.
func goTest(ctx context.Context, root, path string, args ...string) error {
	args = append([]string{"test", "-c", "-ldflags=-s -w"}, args...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./"+path)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := run(cmd); err != nil {
		return fmt.Errorf("build tests of %s: %w\n%s", path, err, output.String())
	}
	return nil
}

// testJobs gives a job for each disk and package.
func testJobs(o TestOptions) []Job {
	jobs := make([]Job, 0, len(o.Disks)*len(o.Packages))
	for _, disk := range o.Disks {
		for _, p := range o.Packages {
			if !p.runsOn(disk) {
				continue
			}
			job := Job{
				Name: path.Join(string(disk), p.Path),
				Disk: disk,
				Dir:  path.Join(guestSource, p.Path),
				// The program's own timeout comes first: it tells which test it is.
				Timeout: o.Timeout + 30*time.Second,
			}
			job.Command = append([]string{
				path.Join(guestBin, p.Path, "test"),
				"-test.paniconexit0",
				"-test.timeout=" + o.Timeout.String(),
				"-test.coverprofile=" + job.ResultPath("cover.out"),
			}, o.Args...)
			jobs = append(jobs, job)
		}
	}
	return jobs
}

// report prints a line for each result, and gives an error that names the failed ones.
func report(w io.Writer, results []Result) error {
	var failed []string
	_, _ = fmt.Fprintln(w)
	for _, r := range results {
		word, note := "ok", ""
		if r.Code != 0 {
			word, note = "FAIL", fmt.Sprintf("\texit code %d", r.Code)
			failed = append(failed, r.Name)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s%s\n", word, r.Name, seconds(r.Time), note)
		for _, thing := range r.Left {
			_, _ = fmt.Fprintf(w, "\tleft behind: %s\n", thing)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("tests failed in the VM: %s", strings.Join(failed, ", "))
	}
	return nil
}

// mergeCoverage joins the coverage of all jobs that have one; the tools add up what occurs twice.
func mergeCoverage(results []Result, file string) error {
	const mode = "mode: atomic\n"
	var merged bytes.Buffer
	merged.WriteString(mode)
	for _, r := range results {
		profile, err := os.ReadFile(filepath.Join(r.Dir, "cover.out"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("merge coverage: %w", err)
		}
		merged.Write(bytes.TrimPrefix(profile, []byte(mode)))
	}
	if err := os.WriteFile(file, merged.Bytes(), 0o644); err != nil {
		return fmt.Errorf("merge coverage: %w", err)
	}
	return nil
}
