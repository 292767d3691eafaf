// Package faults marks the instructions at which a test may end the daemon.
//
// A call of [Point] costs nothing in a normal build. In a build with the tag "faults" the environment decides:
//
//	WS_DAEMON_FAULT=name     the process kills itself (SIGKILL) the first time it reaches the point "name"
//	WS_DAEMON_FAULT=name:3   … the third time
//	WS_DAEMON_FAULT_ONCE=f   … only if file f does not exist; it is created first, so the restarted process lives
//	WS_DAEMON_FAULT_TRACE=f  every point reached is appended to file f, one name a line
//
// Tests walk the traced names, so that a new point is tested as soon as it is written.
package faults
