// Package state keeps a node's working area: its identity, its lock, and the journal.
//
//	<area>/identity.json       says whose area this is; written once
//	<area>/lock                held by flock(2) for the life of the daemon; contains its pid
//	<area>/journal/<uid>.json  what the daemon has to remember of one volume
//	<area>/reserve/<nn>        room for the journal on a disk that its users have filled
//
// The journal is a cache of what markers beside the content say, and of observations and attempts; losing one file of it
// loses no content. Every file is written to a temporary name, flushed, and renamed.
package state
