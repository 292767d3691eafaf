package deployment

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

// Who deploys has a kubectl, most times: nothing is built then.
func TestWhichKubectlDeploys(t *testing.T) {
	g, dir := NewWithT(t), t.TempDir()
	script := func(path, text string) string {
		path = filepath.Join(dir, path)
		g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
		g.Expect(os.WriteFile(path, []byte("#!/bin/bash\n"+text+"\n"), 0o755)).To(Succeed())
		return path
	}
	told := script("told/kubectl", `echo "told: $*"`)
	script("installed/kubectl", `echo "installed: $*"`)
	script("built/kubectl", `echo "built: $*"`)
	script("none/go", `[[ $* == "run ./hack/cluster/cmd tools kubectl" ]] && echo `+filepath.Join(dir, "built"))
	for _, program := range []string{"bash", "dirname"} {
		path, err := exec.LookPath(program)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(os.Symlink(path, filepath.Join(dir, "none", program))).To(Succeed())
	}
	none := "PATH=" + filepath.Join(dir, "none")
	for want, env := range map[string][]string{
		"told: get nodes\n":      {none + ":" + filepath.Join(dir, "installed"), "KUBECTL=" + told},
		"installed: get nodes\n": {none + ":" + filepath.Join(dir, "installed"), "KUBECTL="},
		"built: get nodes\n":     {none},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, "hack/kubectl.sh"), "get", "nodes")
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), "%s", out)
		g.Expect(string(out)).To(Equal(want))
	}
}
