// Package harness runs real daemons against a real API server for the tests that cross packages.
//
// TestMain starts an [Env] once: an API server with its controllers, and a binary of the daemon with fault points.
//
//	func TestMain(m *testing.M) { os.Exit(harness.Main(m, &env)) }
//
// Each test makes a [World] in it: a namespace, an object store and any number of nodes of its own, so that tests can run
// beside each other. All of it goes when the test ends; when the test has failed, objects, events and the ends of the
// daemons' logs are printed first.
//
//	w := env.World(t)                              // harness.OnTmpfs(size) puts the store on a small file system
//	a := w.Node("a")                               // an own disk, kubeconfig and proxy; options change its config.Config
//	a.Start(); a.Kill(); a.Stop(); a.Wait()        // the process; Pause and Resume freeze it; Pid, Log
//	a.Supervise()                                  // Start, and again after every end, as a DaemonSet would
//	a.Proxy.Cut(); a.Proxy.Mend()                  // the way to the API server; the store stays reachable
//	a.KillAt("journal.put.after:2")                // for later starts: kill -9 there, once; Killed says whether it was
//	a.Trace(); a.Traced()                          // which fault points are reached
//	a.Volumes(); a.Journal()                       // what lies on its disk
//	a.Leftovers()                                  // what should not: volumes, trash, journal, temporary files
//
//	ws := w.Workspace("one", a, opts...)           // created; WithGit, WithInterval, WithDeletion, or any func(*v1.Workspace)
//	ws.Object(); ws.Content(); ws.Exists()         // as the API server has it now; where the content lies
//	ws.Ready(); ws.Stopped(); ws.Gone()            // wait until it is
//	ws.Await(what, func(*v1.Workspace) error)      // wait for anything; the last error is the message
//	ws.AwaitCondition(kind, status, reason)        // returns the condition
//	ws.Backup("text")                              // a trigger, and wait until it is honoured; returns the record
//	ws.Patch(func(*v1.Workspace)); ws.Annotate()   // change it, whatever else changes it meanwhile
//	ws.Stop(); ws.StartOn(b); ws.Delete()          // do not wait
//	ws.Domain(); ws.History()                      // its backups, read by package history
//
//	w.Pod("shell", ws, a)                          // a running pod that uses it; RemovePod
//	w.Keep("name", ws)                             // a Snapshot object, and wait until it is ready
//	w.Events(reason)                               // messages of the events of the namespace
//	w.Eventually(what, func() error)               // poll
//	w.HideStore(); w.ShowStore()                   // unreachable and back
//	w.FillStore(); w.DrainStore()                  // full and not; on a tmpfs only
//	w.FreezeStore(); w.ThawStore()                 // refuses writes; on a tmpfs only
//	w.Run("archive", "list", ...)                  // the command line; returns what it prints
//	w.GitServer()                                  // the URL of a small repository over http
//
//	harness.WriteTree(t, dir, seed)                // a tree with everything that is hard to keep
//	harness.Snapshot(t, dir)                       // what a tree is, entry by entry, by a walker of its own
package harness
