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
//	w := env.World(t, opts...)                     // OnTmpfs(size) for the store; OnOwnCluster()
//	a := w.Node("a")                               // an own disk, kubeconfig and proxy; options change its config.Config
//	a.Start(); a.Kill(); a.Stop(); a.Wait()        // the process; Log is what it says
//	a.Supervise()                                  // Start, and again after every end, as a DaemonSet would
//	a.Proxy.Cut(); a.Proxy.Mend()                  // the way to the API server; the store stays reachable
//	a.KillAt("journal.put.after:2")                // for later starts: kill -9 there, once; Killed says whether it was
//	a.Trace(); a.Traced()                          // which fault points are reached
//	a.Volumes(); a.Journal()                       // what lies on its disk
//	a.Join(); a.Leave()                            // its Node object
//	w.Controller("c", grace)                       // a replica of the cluster controller; tests with one do not run at once
//	a.Leftovers()                                  // what should not: volumes, trash, journal, temporary files
//
//	ws := w.Workspace("one", a, opts...)           // created; WithGit, WithInterval, WithDeletion, or any func(*v1.Workspace)
//	ws.Object(); ws.Condition(kind); ws.Exists()   // as the API server has it now
//	ws.Content(); ws.Withdrawn()                   // where the content lies; Write and Read files of it
//	ws.Ready(); ws.Stopped(); ws.Gone()            // wait until it is
//	ws.Await(what, func(*v1.Workspace) error)      // wait for anything; the last error is the message
//	ws.AwaitCondition(kind, status, reason...)     // returns the condition; AwaitNoCondition
//	ws.Backup("text")                              // a trigger, and wait until it is honoured; returns the record
//	ws.Patch(func(*v1.Workspace)); ws.Annotate()   // change it, whatever else changes it meanwhile
//	ws.Stop(); ws.StartOn(b); ws.Delete()          // do not wait, but ws.Stop().Stopped() does
//	ws.FailOverTo(b)                               // as after the death of its node
//	ws.Domain(); ws.Names(); ws.History()          // what the store has of it, read by package history; AwaitBackup
//	ws.Strays(a); ws.AwaitStray(a)                 // what a node kept of it that it could not commit
//	ws.Export(); ws.Saved("file")                  // the newest backup, or another one, unpacked by the command line and tar
//
//	w.Pod("shell", ws, a)                          // a running pod that uses it; RemovePod
//	w.Keep("name", ws)                             // a Snapshot object, and wait until it is ready
//	w.AwaitEvent(reason, "text")                   // in the namespace
//	w.Eventually(what, func() error)               // poll, for w.Patience
//	w.Hide(path); w.Show(path)                     // anything: a.Area, w.Packs(), w.Backups()
//	w.HideStore(); w.ShowStore()                   // unreachable and back
//	w.FillStore(); w.DrainStore()                  // full and not; on a tmpfs only
//	w.FreezeStore(); w.ThawStore()                 // refuses writes; on a tmpfs only
//	w.InitStore(dir)                               // another, empty store
//	w.Run("archive", "list", ...)                  // the command line; returns what it prints
//	w.GitServer()                                  // the URL of a small repository over http
//
//	harness.WriteTree(t, dir, seed)                // a tree with everything that is hard to keep
//	harness.Snapshot(t, dir)                       // what a tree is, entry by entry, by a walker of its own
package harness
