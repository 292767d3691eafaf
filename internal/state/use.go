package state

import (
	"slices"
	"time"
)

// Use is a mount of the content for a pod. It is written down before the mount is made, and stays until that is gone.
type Use struct {
	// Target is the path of the mount, as the kubelet calls it.
	Target string `json:"target"`
	// Volume is the id that the kubelet gave to it; empty if the mount was found and nobody knows.
	Volume string `json:"volume,omitempty"`
	// Pod and PodUID name the pod, which is of the workspace's namespace. Of a mount that was found only the UID is known.
	Pod    string `json:"pod,omitempty"`
	PodUID string `json:"podUID,omitempty"`
	// Since is when it was written down.
	Since time.Time `json:"since,omitzero"`
}

// User names who has the mount: the pod, or what is known of it.
func (u Use) User() string {
	switch {
	case u.Pod != "":
		return u.Pod
	case u.PodUID != "":
		return "with UID " + u.PodUID
	default:
		return u.Target
	}
}

// Use returns the use of a target.
func (e Entry) Use(target string) (Use, bool) {
	i := e.use(target)
	if i < 0 {
		return Use{}, false
	}
	return e.Uses[i], true
}

func (e Entry) use(target string) int {
	return slices.IndexFunc(e.Uses, func(u Use) bool { return u.Target == target })
}

// Begin writes a use into the entry. What is known of the same target already is replaced.
func (e *Entry) Begin(u Use) {
	if i := e.use(u.Target); i >= 0 {
		e.Uses[i] = u
		return
	}
	e.Uses = append(e.Uses, u)
}

// End takes the use of a target out of the entry, and says whether there was one.
func (e *Entry) End(target string) bool {
	i := e.use(target)
	if i < 0 {
		return false
	}
	e.Uses = slices.Delete(e.Uses, i, i+1)
	return true
}

// UsedAt returns the entries with a use of a target, ordered by UID. There is one at most, unless somebody has mounted
// one workspace over another.
func (j *Journal) UsedAt(target string) []Entry {
	return slices.DeleteFunc(j.List(), func(e Entry) bool { return e.use(target) < 0 })
}
