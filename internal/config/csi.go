package config

import "errors"

const (
	// maxSocket is the longest path that a socket can have on Linux, in bytes.
	maxSocket = 107
	// maxRegistration leaves room for the name of the driver's socket there.
	maxRegistration = maxSocket - len("/workspace.wsdaemon.dev-reg.sock")
)

// CSI is how pods get workspaces as volumes: the daemon is a CSI driver of the node's kubelet.
type CSI struct {
	// Socket of the driver, at a path that is the kubelet's, too, as /var/lib/kubelet/plugins/workspace.wsdaemon.dev/csi.sock. Empty turns
	// the driver off.
	Socket string `json:"socket"`
	// RegistrationDir is where the kubelet looks for drivers.
	RegistrationDir string `json:"registrationDir"`
	// KubeletDir is the kubelet's directory (its flag --root-dir), below which volumes are mounted for pods. The daemon must have it by the
	// same path, and as a shared mount.
	KubeletDir string `json:"kubeletDir"`
}

// Enabled says whether there is a driver.
func (c CSI) Enabled() bool { return c.Socket != "" }

func (c CSI) validate(area string) error {
	if !c.Enabled() {
		return nil
	}
	errs := []error{
		absolute("csi.socket", c.Socket), absolute("csi.registrationDir", c.RegistrationDir), absolute("csi.kubeletDir", c.KubeletDir),
	}
	errs = append(errs, short("csi.socket", c.Socket, maxSocket), short("csi.registrationDir", c.RegistrationDir, maxRegistration))
	if nested(area, c.KubeletDir) {
		errs = append(errs, wrong("csi.kubeletDir", "must not be within content.workingArea, nor the other way round: the kubelet removes what it does not know"))
	}
	return errors.Join(errs...)
}

func short(key, path string, limit int) error {
	if len(path) > limit {
		return wrong(key, "must be a path of at most %d bytes, not %d: Linux has no longer ones for sockets", limit, len(path))
	}
	return nil
}
