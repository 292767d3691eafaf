package csi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// What the kubelet tells of a pod, since the CSIDriver object asks for it. Other attributes with that prefix are the kubelet's, too.
const (
	kubeletPrefix   = "csi.storage.k8s.io/"
	attributePod    = kubeletPrefix + "pod.name"
	attributeSpace  = kubeletPrefix + "pod.namespace"
	attributeUID    = kubeletPrefix + "pod.uid"
	attributeInline = kubeletPrefix + "ephemeral"
)

// longestName is how long the name of a workspace may be, in bytes.
const longestName = 63

// request is what a pod asks for.
type request struct {
	volume, target string
	workspace, pod types.NamespacedName
	podUID         string
	readOnly       bool
}

// parse returns what is asked for, or what is wrong with it.
func parse(r *csi.NodePublishVolumeRequest) (request, error) {
	attributes := r.GetVolumeContext()
	errs := []error{
		given("volume_id", r.GetVolumeId()), given("target_path", r.GetTargetPath()),
		capability(r.GetVolumeCapability()), checkAttributes(attributes),
	}
	if uid := podOf(r.GetTargetPath()); uid != attributes[attributeUID] && uid != "" && attributes[attributeUID] != "" {
		errs = append(errs, fmt.Errorf("the volume is of the pod with UID %s, and says to be of %q: the CSIDriver object %s needs podInfoOnMount: true",
			uid, clip(attributes[attributeUID]), v1.CSIDriver))
	}
	if len(r.GetSecrets()) > 0 {
		errs = append(errs, errors.New("nodePublishSecretRef: no secret is needed: remove it"))
	}
	if err := errors.Join(errs...); err != nil {
		return request{}, err
	}
	namespace := attributes[attributeSpace]
	return request{
		volume: r.GetVolumeId(), target: r.GetTargetPath(),
		workspace: types.NamespacedName{Namespace: namespace, Name: attributes[v1.CSIAttributeWorkspace]},
		pod:       types.NamespacedName{Namespace: namespace, Name: attributes[attributePod]},
		podUID:    attributes[attributeUID],
		readOnly:  r.GetReadonly(),
	}, nil
}

func given(field, value string) error {
	if value == "" {
		return fmt.Errorf("%s is missing", field)
	}
	return nil
}

// checkAttributes refuses attributes that nobody knows: a typing error must not be taken for a wish that was granted.
func checkAttributes(attributes map[string]string) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		if key != v1.CSIAttributeWorkspace && !strings.HasPrefix(key, kubeletPrefix) {
			errs = append(errs, fmt.Errorf("volumeAttributes: %q is not known, only %q: remove it", clip(key), v1.CSIAttributeWorkspace))
		}
	}
	errs = append(errs, checkName(attributes[v1.CSIAttributeWorkspace]))
	for _, key := range []string{attributePod, attributeSpace, attributeUID} {
		if attributes[key] == "" {
			errs = append(errs, fmt.Errorf("the kubelet does not say whose volume it is (%s): the CSIDriver object %s needs podInfoOnMount: true", key, v1.CSIDriver))
		}
	}
	if inline := attributes[attributeInline]; inline == "false" {
		errs = append(errs, errors.New("a PersistentVolume cannot be a workspace: name the driver in the pod's own volumes, under csi"))
	}
	return errors.Join(errs...)
}

// checkName refuses what no workspace can be called: the API server would, too, in words that do not say where the mistake is.
func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("volumeAttributes: %q must name a workspace in the namespace of the pod", v1.CSIAttributeWorkspace)
	}
	if len(name) > longestName || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return fmt.Errorf("volumeAttributes: no workspace can be called %q: let %q have its name alone, without the namespace, which is the pod's: "+
			"at most %d of a-z, 0-9, '-' and '.', with a letter or digit at both ends", clip(name), v1.CSIAttributeWorkspace, longestName)
	}
	return nil
}

// capability refuses what a directory cannot be.
func capability(c *csi.VolumeCapability) error {
	switch {
	case c == nil:
		return errors.New("volume_capability is missing")
	case c.GetMount() == nil:
		return errors.New("a workspace is a directory, and no block device")
	case c.GetMount().GetFsType() != "":
		return fmt.Errorf("fsType: a workspace has the file system of its volume class, and not %q: remove it", clip(c.GetMount().GetFsType()))
	case len(c.GetMount().GetMountFlags()) > 0:
		return fmt.Errorf("mount options: a workspace has none, and not %q: remove them", clip(strings.Join(c.GetMount().GetMountFlags(), ",")))
	}
	switch mode := c.GetAccessMode().GetMode(); mode {
	case csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
		csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:
		return fmt.Errorf("access mode %s: a workspace is on one node", mode)
	default:
		return nil
	}
}

// clip keeps what a user wrote from filling events.
func clip(text string) string {
	const limit = 100
	if len(text) <= limit {
		return text
	}
	return text[:limit] + "…"
}
