package state_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/faults/faultstest"
	"wsdaemon.dev/ws-daemon/internal/state"
)

func entry(uid, name string) state.Entry {
	since := time.Unix(1700000000, 0).UTC()
	return state.Entry{
		Format: 1, UID: uid, Namespace: "team", Name: name, Class: "default", Claim: 7,
		MissingSince: &since, MissingSeen: since.Add(time.Hour),
		Backup: state.Backup{
			Name: "7.2", Hash: "h", CommitID: "c", Time: since, CheckedAt: since, Read: 5, Files: 1, Bytes: 2,
			Uploaded: 3, Duration: time.Second, Complete: true, Problem: "p", Pending: &state.Pending{Number: 3, ID: "x"},
			Attempts: 4, LastFailure: since, Failure: "failed", NextAttempt: since, Trigger: "t", Last: 2,
		},
	}
}

func TestS5_JournalSurvives(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	j := a.Journal()
	old, current, other := entry("u2", "web"), entry("u1", "web"), entry("u3", "db")
	for _, e := range []state.Entry{old, current, other} {
		g.Expect(j.Put(e)).To(Succeed())
	}
	check := func(j *state.Journal) {
		g.Expect(j.List()).To(Equal([]state.Entry{current, old, other}))
		g.Expect(j.Find("team", "web")).To(Equal([]state.Entry{current, old}))
		g.Expect(j.Find("team", "none")).To(BeEmpty())
		g.Expect(j.Find("other", "web")).To(BeEmpty())
		got, ok := j.Get("u3")
		g.Expect(ok).To(BeTrue())
		g.Expect(got).To(Equal(other))
		_, ok = j.Get("u4")
		g.Expect(ok).To(BeFalse())
		g.Expect(j.Damaged()).To(BeEmpty())
	}
	check(j)
	a.Close()
	j = open(t, dir).Journal()
	check(j)

	g.Expect(j.Delete("u1")).To(Succeed())
	g.Expect(j.Delete("u1")).To(Succeed())
	g.Expect(j.List()).To(Equal([]state.Entry{old, other}))
	g.Expect(filepath.Join(dir, "journal", "u1.json")).NotTo(BeAnExistingFile())
}

func TestJournalKeepsItsEntriesToItself(t *testing.T) {
	g := NewWithT(t)
	a, _ := initialized(t)
	e := entry("u1", "web")
	g.Expect(a.Journal().Put(e)).To(Succeed())
	e.Backup.Pending.ID = "changed by the caller"
	got, _ := a.Journal().Get("u1")
	g.Expect(got).To(Equal(entry("u1", "web")))
	*got.MissingSince = time.Time{}
	got.Backup.Pending.Number = 99
	g.Expect(a.Journal().List()).To(Equal([]state.Entry{entry("u1", "web")}))
}

func TestJournalRefusesNames(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	for _, uid := range []string{"", ".", "..", "../x", "a/b", "a.b", "a\x00", strings.Repeat("u", 65)} {
		g.Expect(a.Journal().Put(state.Entry{UID: uid})).To(MatchError(ContainSubstring("is no UID")), "%q", uid)
		g.Expect(a.Journal().Delete(uid)).To(MatchError(ContainSubstring("is no UID")), "%q", uid)
	}
	g.Expect(os.ReadDir(filepath.Join(dir, "journal"))).To(BeEmpty())
}

func TestDamagedFilesAreSetAside(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	g.Expect(a.Journal().Put(entry("good", "web"))).To(Succeed())
	a.Close()
	file := func(name string) string { return filepath.Join(dir, "journal", name) }
	for name, text := range map[string]string{
		"empty.json": "", "cut.json": `{"format":1,"uid":"cu`, "newer.json": `{"format":2,"uid":"newer"}`,
		"other.json": `{"format":1,"uid":"good"}`, "large.json": strings.Repeat(" ", 2<<20), "README": "kept", ".tmp-x": "{",
	} {
		g.Expect(os.WriteFile(file(name), []byte(text), 0o600)).To(Succeed())
	}
	g.Expect(os.Mkdir(file("dir.json"), 0o700)).To(Succeed())

	for range 2 {
		a = open(t, dir)
		g.Expect(a.Journal().List()).To(Equal([]state.Entry{entry("good", "web")}))
		g.Expect(a.Journal().Damaged()).To(Equal([]string{"cut", "dir", "empty", "large", "newer", "other"}))
		a.Close()
	}
	g.Expect(os.ReadFile(file("cut.damaged"))).To(BeEquivalentTo(`{"format":1,"uid":"cu`))
	g.Expect(file(".tmp-x")).NotTo(BeAnExistingFile())
	g.Expect(file("README")).To(BeAnExistingFile())

	a = open(t, dir)
	g.Expect(a.Journal().Put(entry("cut", "web"))).To(Succeed())
	g.Expect(a.Journal().Damaged()).To(ContainElement("cut"), "until someone has looked")
	g.Expect(a.Journal().Delete("cut")).To(Succeed())
	g.Expect(a.Journal().Damaged()).NotTo(ContainElement("cut"))
	g.Expect(file("cut.damaged")).NotTo(BeAnExistingFile())
}

func TestPutThatFailsChangesNothing(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	g.Expect(a.Journal().Put(entry("u1", "web"))).To(Succeed())
	g.Expect(os.Rename(filepath.Join(dir, "journal"), filepath.Join(dir, "moved"))).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "journal"), nil, 0o600)).To(Succeed())
	changed := entry("u1", "web")
	changed.Claim = 8
	g.Expect(a.Journal().Put(changed)).To(MatchError(ContainSubstring("write journal of team/web (u1)")))
	g.Expect(a.Journal().List()).To(Equal([]state.Entry{entry("u1", "web")}))
}

func TestJournalDirectoryThatWasRemovedIsMadeAgain(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	g.Expect(os.RemoveAll(filepath.Join(dir, "journal"))).To(Succeed())
	g.Expect(a.Journal().Put(entry("u1", "web"))).To(Succeed())
	g.Expect(filepath.Join(dir, "journal", "u1.json")).To(BeAnExistingFile())
}

func TestJournalFromManyGoroutines(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			e := entry(fmt.Sprintf("u%d", i%4), "web")
			for n := range 5 {
				e.Claim = int64(n)
				g.Expect(a.Journal().Put(e)).To(Succeed())
				a.Journal().Find("team", "web")
				a.Journal().Get(e.UID)
			}
		})
	}
	writers.Wait()
	memory := a.Journal().List()
	g.Expect(memory).To(HaveLen(4))
	a.Close()
	g.Expect(open(t, dir).Journal().List()).To(Equal(memory))
}

// A reconcile pass notes what it sees while a job notes what it commits: neither may take back the other's.
func TestS4_UpdatesDoNotUndoEachOther(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	g.Expect(a.Journal().Put(entry("u1", "web"))).To(Succeed())
	const rounds = 50
	var writers sync.WaitGroup
	for _, change := range []func(*state.Entry){
		func(e *state.Entry) { e.Backup.Last++ },
		func(e *state.Entry) { e.Backup.Pending.Number++ },
		func(e *state.Entry) { e.MissingSeen = e.MissingSeen.Add(time.Second) },
	} {
		writers.Go(func() {
			for range rounds {
				_, err := a.Journal().Update("u1", func(e *state.Entry, _ bool) bool {
					change(e)
					return true
				})
				g.Expect(err).NotTo(HaveOccurred())
			}
		})
	}
	writers.Wait()
	want := entry("u1", "web")
	want.Backup.Last += rounds
	want.Backup.Pending.Number += rounds
	want.MissingSeen = want.MissingSeen.Add(rounds * time.Second)
	g.Expect(a.Journal().List()).To(Equal([]state.Entry{want}))
	a.Close()
	g.Expect(open(t, dir).Journal().List()).To(Equal([]state.Entry{want}))
}

func TestUpdate(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	j := a.Journal()
	rename := func(to string, keep bool) func(*state.Entry, bool) bool {
		return func(e *state.Entry, found bool) bool {
			g.Expect(e.UID).To(Equal("u1"))
			g.Expect(found).To(Equal(e.Name != ""))
			e.Name, e.UID = to, "other"
			return keep
		}
	}
	g.Expect(j.Update("u1", rename("web", false))).To(Equal(state.Entry{}), "it was not asked for")
	g.Expect(j.List()).To(BeEmpty())
	g.Expect(j.Update("u1", rename("web", true))).To(Equal(state.Entry{Format: 1, UID: "u1", Name: "web"}))
	g.Expect(j.Update("u1", rename("db", false))).To(Equal(state.Entry{Format: 1, UID: "u1", Name: "web"}))
	g.Expect(j.Update("u1", rename("db", true))).To(Equal(state.Entry{Format: 1, UID: "u1", Name: "db"}))

	_, err := j.Update("../x", rename("web", true))
	g.Expect(err).To(MatchError(ContainSubstring("is no UID")))
	g.Expect(os.RemoveAll(filepath.Join(dir, "journal"))).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "journal"), nil, 0o600)).To(Succeed())
	g.Expect(j.Update("u1", rename("x", true))).Error().To(MatchError(ContainSubstring("write journal of /x (u1)")))
	g.Expect(j.List()).To(Equal([]state.Entry{{Format: 1, UID: "u1", Name: "db"}}), "what is in memory is what is on the disk")
}

const areaVariable = "WS_DAEMON_TEST_AREA"

// TestChild is what TestS5_JournalIsOldOrNewAfterKill runs and kills; without its environment it does nothing.
func TestChild(t *testing.T) {
	dir := os.Getenv(areaVariable)
	if dir == "" {
		return
	}
	changed := entry("u1", "web")
	changed.Claim = 8
	NewWithT(t).Expect(open(t, dir).Journal().Put(changed)).To(Succeed())
}

func TestS5_JournalIsOldOrNewAfterKill(t *testing.T) {
	binary := faultstest.Build(t)
	for point, claim := range map[string]int64{"journal.put.before": 7, "journal.put.after": 8} {
		t.Run(point, func(t *testing.T) {
			g := NewWithT(t)
			a, dir := initialized(t)
			g.Expect(a.Journal().Put(entry("u1", "web"))).To(Succeed())
			a.Close()
			g.Expect(binary.Run(t.Context(), areaVariable+"="+dir, faultstest.Kill(point))).To(MatchError("signal: killed: fault point " + point + " reached for the 1. time: killed\n"))

			a = open(t, dir)
			got, ok := a.Journal().Get("u1")
			g.Expect(ok).To(BeTrue())
			g.Expect(got.Claim).To(Equal(claim))
			g.Expect(a.Journal().Damaged()).To(BeEmpty())
		})
	}
}
