// Package fleet is what one process does for a whole cluster: the leader of the replicas of `ws-daemon controller`.
//
// A daemon acts on the objects of its own node. When that node is gone nobody would: then objects that are being deleted would stay for
// ever, and nobody would say why the others do not get on. The controller says it, in a condition of its own, lets go what is being deleted,
// gives snapshots a node, and tends the store. It never moves a workspace: whether a node is really dead is for people, and those whom
// they trust, to say.
//
// What the API server is asked for is allowed by config/controller/role.yaml, verb by verb.
package fleet
