package fleet

import (
	"errors"
	"fmt"
	"strings"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// errNoNodes says that the API server has no node at all.
var errNoNodes = errors.New("the cluster has no node at all: nothing is let go until it has some")

// responsible returns the node whose daemon has to act on a workspace: the one that holds the content, unless it is fenced; else the one that
// shall. It is "" if there is none.
func responsible(ws *v1.Workspace) string {
	if holder := ws.Status.NodeName; holder != "" && holder != ws.Spec.FencedNode {
		return holder
	}
	return ws.Spec.NodeName
}

// verdict is what is to be done about an object.
type verdict struct {
	reason  string // of the condition NodeGone; "": there is to be none
	message string
	since   time.Time     // when it was first said; the zero time: it is news
	release bool          // the object is to be let go
	after   time.Duration // when to look again; 0: when something changes
}

// holderUID returns the UID of the Node that took the content, as long as that is the responsible one; "" if it is not known.
func holderUID(ws *v1.Workspace) string {
	if ws.Status.NodeName == "" || ws.Status.NodeName != responsible(ws) {
		return ""
	}
	return ws.Status.NodeUID
}

// standing is how a node stands that is responsible for a workspace.
type standing struct {
	present  bool      // there is a Node of that name
	replaced bool      // it is another one than the one that took the workspace, and its daemon has not reported
	made     time.Time // when it was made, if it is another one
}

// arrival is how long the daemon of a new Node may take until it has reported.
const arrival = 2 * time.Minute

// decideWorkspace decides from the object, and how its node stands.
func decideWorkspace(ws *v1.Workspace, is standing, now time.Time, grace time.Duration) verdict {
	node := responsible(ws)
	deleting := !ws.DeletionTimestamp.IsZero() && controllerutil.ContainsFinalizer(ws, v1.FinalizerContent)
	_, paused := ws.Annotations[v1.AnnotationPaused]
	switch {
	case node == "":
		return verdict{release: deleting && !paused} // no daemon sees it
	case is.present && !is.replaced:
		return verdict{}
	case is.replaced && is.made.Add(arrival).After(now):
		return verdict{after: is.made.Add(arrival).Sub(now)}
	}
	var v verdict
	switch {
	case is.replaced:
		v.reason = v1.ReasonNodeReplaced
		v.message = fmt.Sprintf("node %s took the content, and a Node of that name was made anew since, whose daemon has not reported: %s. If the "+
			"daemon cannot run there, it says why in its pod; if the content is lost with the old machine, it says so when it runs", node, saved(ws))
	case node == ws.Status.NodeName:
		v.reason = v1.ReasonNodeDeleted
		v.message = fmt.Sprintf("node %s holds the content and is not in the cluster any more: %s. If it is dead, name it in spec.fencedNode "+
			"and another node in spec.nodeName; if it comes back, it goes on", node, saved(ws))
	default:
		v.reason = v1.ReasonNodeNotFound
		v.message = fmt.Sprintf("there is no node %s in the cluster: correct spec.nodeName, or let the node join", node)
	}
	return v.due(deleting && !paused, ws.CreationTimestamp.Time, sinceWhen(ws.Status.Conditions, node), now, grace)
}

// due says when an object is to be let go, or looked at. since is when it was first said that its node is gone; the zero time if it was not.
func (v verdict) due(deleting bool, created, since, now time.Time, grace time.Duration) verdict {
	v.after, v.since = lookAgain, since
	switch young := created.Add(settle).Sub(now); {
	case since.IsZero() && young > 0 && young <= settle:
		return verdict{after: young}
	case !deleting:
		return v
	case since.IsZero():
		v.after = grace
		return v
	}
	left := since.Add(grace).Sub(now)
	v.release = left <= 0
	v.after = max(min(left, lookAgain), time.Second)
	if !v.release {
		v.message += fmt.Sprintf(". The object is being deleted: it is let go without the node at %s", since.Add(grace).UTC().Format(time.RFC3339))
	}
	return v
}

// saved says what of a workspace is in the store.
func saved(ws *v1.Workspace) string {
	b := ws.Status.Backup
	if b == nil || b.Latest == nil {
		return "there is no backup"
	}
	text := fmt.Sprintf("the last backup is %s of %s", b.Latest.Name, b.Latest.Time.UTC().Format(time.RFC3339))
	if b.CheckedAt != nil {
		text += fmt.Sprintf(", and at %s there was nothing else to save", b.CheckedAt.UTC().Format(time.RFC3339))
	}
	return text
}

// farewell is the truth about a workspace that is let go without its node.
func farewell(ws *v1.Workspace) string {
	node, text := responsible(ws), ""
	switch {
	case node == "":
		text = "no node is responsible for the workspace, and none holds its content: the object is let go. " + capital(saved(ws)) + "."
	case node != ws.Status.NodeName:
		text = fmt.Sprintf("node %s is not in the cluster and held no content: the object is let go. %s.", node, capital(saved(ws)))
	default:
		text = fmt.Sprintf("node %s is gone with the content: the object is let go without a final backup. %s. What was changed since is lost, "+
			"unless the node comes back: then it keeps that as a stray snapshot.", node, capital(saved(ws)))
	}
	if ws.Spec.DeletionPolicy == v1.DeletionDelete {
		text += " The backups go when their grace is over, as deletionPolicy says."
	}
	return text
}

func capital(text string) string { return string(text[0]-'a'+'A') + text[1:] }

// presence is how the node stands that a snapshot names.
type presence int

const (
	nodeUnnamed presence = iota
	nodeAbsent           // there is no Node of that name
	nodeSilent           // there is one, which is not ready
	nodeReady
)

// decideSnapshot decides about a snapshot that a node still has to make, or to remove.
func decideSnapshot(s *v1.Snapshot, has presence, now time.Time) verdict {
	var v verdict
	switch node := s.Spec.NodeName; has {
	case nodeReady:
		return v
	case nodeUnnamed:
		v.reason = v1.ReasonNoNodeReady
		v.message = "no node is ready whose daemon serves workspaces: see kubectl get nodes, and kubectl get workspacenodes"
	case nodeAbsent:
		v.reason = v1.ReasonNodeNotFound
		v.message = fmt.Sprintf("there is no node %s in the cluster: give spec.nodeName another one, which then keeps the newest backup of "+
			"workspace %s, or let the node join", node, s.Spec.WorkspaceName)
	case nodeSilent:
		v.reason = v1.ReasonNodeNotReady
		v.message = fmt.Sprintf("node %s is not ready, and the snapshot waits for it: give spec.nodeName another one, which then keeps the "+
			"newest backup of workspace %s, or mend the node", node, s.Spec.WorkspaceName)
	}
	v = v.due(false, s.CreationTimestamp.Time, sinceWhen(s.Status.Conditions, s.Spec.NodeName), now, 0)
	v.after = min(v.after, lookAgain/10) // a node that serves others may be ready by then
	return v
}

// gone returns the condition NodeGone; nil if there is none.
func gone(conditions []metav1.Condition) *metav1.Condition {
	return apimeta.FindStatusCondition(conditions, v1.ConditionNodeGone)
}

// sinceWhen returns since when NodeGone says of a node that it is gone; the zero time if it does not, or is about another one.
func sinceWhen(conditions []metav1.Condition, node string) time.Time {
	if c := gone(conditions); c != nil && subject(c.Message) == node {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

// subject returns the node that a message of NodeGone is about: all of them begin with it, and a condition has no other place for a name. It is
// "" if there is none.
func subject(message string) string {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(message, "there is no "), "node ")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, " ")
	return name
}

// lastSign returns when a daemon last wrote the status of an object, as it was read from the API server; the zero time if none ever did.
func lastSign(o metav1.Object) time.Time {
	var last time.Time
	for _, m := range o.GetManagedFields() {
		if m.Manager == v1.FieldOwner && m.Time != nil && m.Time.After(last) {
			last = m.Time.Time
		}
	}
	return last
}
