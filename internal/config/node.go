package config

import "errors"

// Node is how the daemon treats the node that it runs on.
type Node struct {
	// ReservePercent of every disk is never reported as free.
	ReservePercent int `json:"reservePercent"`
	// Pressure says when a disk has too little room for new workspaces.
	Pressure Pressure `json:"pressure"`
	// TaintUnderPressure keeps pods that do not tolerate workspace.wsdaemon.dev/disk-pressure from the node while it is short of
	// room.
	TaintUnderPressure bool `json:"taintUnderPressure"`
	// ProtectFromScaleDown has the cluster autoscaler keep the node while content on it is not backed up.
	ProtectFromScaleDown bool `json:"protectFromScaleDown"`
}

// Pressure is when a disk is short of something.
type Pressure struct {
	// Bytes and Inodes of the working area and of the disks of volume classes, but of no thin pool.
	Bytes  Threshold `json:"bytes"`
	Inodes Threshold `json:"inodes"`
	// ThinData and ThinMetadata of thin pools.
	ThinData     Threshold `json:"thinData"`
	ThinMetadata Threshold `json:"thinMetadata"`
}

// Threshold is in percent of what there is. Between the two, what was stays, so that nothing flaps.
type Threshold struct {
	// Set is how much must be in use for pressure to begin.
	Set int `json:"set"`
	// Clear is how much may be in use for it to end.
	Clear int `json:"clear"`
}

// defaultNode leaves room between pressure and what drivers refuse: thin pools make no volume from 95 % of their data, or 90 %
// of their metadata, on.
func defaultNode() Node {
	return Node{
		ReservePercent: 5,
		Pressure: Pressure{
			Bytes: Threshold{90, 85}, Inodes: Threshold{90, 85}, ThinData: Threshold{85, 80}, ThinMetadata: Threshold{80, 70},
		},
		ProtectFromScaleDown: true,
	}
}

func (n Node) validate() error {
	var reserve error
	if n.ReservePercent < 0 || n.ReservePercent > 50 {
		reserve = wrong("node.reservePercent", "must be from 0 to 50, not %d", n.ReservePercent)
	}
	return errors.Join(
		reserve,
		n.Pressure.Bytes.validate("node.pressure.bytes"),
		n.Pressure.Inodes.validate("node.pressure.inodes"),
		n.Pressure.ThinData.validate("node.pressure.thinData"),
		n.Pressure.ThinMetadata.validate("node.pressure.thinMetadata"),
	)
}

func (t Threshold) validate(key string) error {
	if t.Clear < 1 || t.Clear >= t.Set || t.Set > 100 {
		return wrong(key, "clear must be at least 1, less than set, and set at most 100, not %d and %d", t.Clear, t.Set)
	}
	return nil
}
