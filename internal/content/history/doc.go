// Package history is the layer of commits in a store: which backups a workspace has, who may add to them and which go.
//
// Every object is created once and never changed. A commit names the packs that hold the content, and is written after
// them: a backup exists from the moment of that one write. Names are ordered by claim, then number, and their keys are
// inverted so that the newest lists first. A claim is announced by a record without content before anything is restored
// under it; whoever finds a newer claim than its own is fenced and commits nothing more.
//
//	d/<domain>/domain.json                    which cluster the domain belongs to
//	d/<domain>/w/<workspace>/<claim>.<n>      commits, and the claim's record as number 0 (both parts inverted)
//	d/<domain>/w/<workspace>/<claim>-deleted  tombstone: everything of the workspace up to this claim is dead, and lists after it
//	d/<domain>/t/<workspace>/<claim>          a copy of it, by which the graves of a domain are found
//	d/<domain>/s/<id>                         pin: a copy of a commit that retention does not touch
//	d/<domain>/p/<2 hex digits>/<id>          packs, named at random
//	d/<domain>/g/c/<hash>                     condemned: packs that no commit or pin named, and that go if none does after a day
//	d/<domain>/g/s/<hash>                     swept: such a list whose time has come; kept for a week
//	d/<domain>/k/<generation>                 what tells the key of that generation from another one
//	tend/<cluster>.collect/<time>             which node counts what nothing needs, in the day that began then
//	tend/<cluster>/<time>                     which node removes what has had its time, in the hour that began then
package history
