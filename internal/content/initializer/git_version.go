package initializer

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

// fixedVersions are the versions of each series of git 2 in which its project has fixed all that was published up to July 2025: CVE-2024-32002 (a
// submodule behind a link), CVE-2024-50349 and -52006 (control characters in what credentials are asked for), CVE-2025-48384 (a carriage
// return in a submodule's path) and -48385 (bundles). Every later series has it.
func fixedVersions() map[int]int {
	return map[int]int{43: 7, 44: 4, 45: 4, 46: 4, 47: 3, 48: 2, 49: 1, 50: 1}
}

const lastFixedSeries = 50

// nobody is the user that git tells its version to.
const nobody = 65534

// OldVersionError means that git's version is older than its project's fixes.
type OldVersionError struct{ Version string }

// Error says what to look for.
func (e *OldVersionError) Error() string {
	return fmt.Sprintf("git %s is older than the versions in which its project fixed what is known (2.43.7, 2.44.4, … 2.50.1): a distribution may have "+
		"fixed it all the same, so look for CVE-2024-32002, CVE-2024-50349, CVE-2024-52006, CVE-2025-48384 and CVE-2025-48385 in the changelog of its package", e.Version)
}

// Version asks git for its version. An *[OldVersionError] if that is older than the fixes of what is known; a newer one proves nothing
// about what is not.
func (g Git) Version(ctx context.Context) (string, error) {
	var words string
	err := g.Sandbox.Run(ctx, sandbox.Job{
		Task: taskVersion, Input: orGit(g.Program), Result: &words, Dir: "/usr", ReadOnly: true, UID: nobody, GID: nobody,
	})
	if err != nil {
		return "", outside(ctx, "ask git for its version", err)
	}
	return judgeVersion(words)
}

func versionTask(ctx context.Context, call *sandbox.Call) (any, error) {
	var program string
	if err := call.Decode(&program); err != nil {
		return nil, err
	}
	out := &head{limit: 200}
	cmd := exec.CommandContext(ctx, program, "version")
	cmd.Env = []string{"HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}
	cmd.Stdout, cmd.WaitDelay = out, 5*time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s version: %w", program, err)
	}
	return strings.TrimSpace(out.buf.String()), nil
}

// judgeVersion reads "git version 2.50.1", with whatever a distribution adds.
func judgeVersion(words string) (string, error) {
	m := regexp.MustCompile(`^git version (([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:[^0-9 ]\S*)?)(?: |$)`).FindStringSubmatch(words)
	if m == nil {
		return "", errors.New("git does not tell its version")
	}
	major, _ := strconv.Atoi(m[2])
	minor, _ := strconv.Atoi(m[3])
	patch, _ := strconv.Atoi(m[4])
	fixed, known := fixedVersions()[minor]
	if major > 2 || major == 2 && (minor > lastFixedSeries || known && patch >= fixed) {
		return m[1], nil
	}
	return m[1], &OldVersionError{m[1]}
}
