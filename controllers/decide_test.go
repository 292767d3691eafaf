package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	home = "node-a"
	area = "area-1"
	uid  = "uid-1"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// running is a pass over a workspace that this node holds under claim 3, with finished, published content.
func running(changes ...func(*scope)) *scope {
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "web", UID: uid, Generation: 4, Annotations: map[string]string{}},
		Spec: v1.WorkspaceSpec{
			NodeName: home, State: v1.StateRunning,
			Volume: v1.VolumeSpec{Class: "default", Size: resource.MustParse("1Gi")},
			Backup: v1.BackupSpec{Interval: &metav1.Duration{Duration: 10 * time.Minute}},
		},
		Status: v1.WorkspaceStatus{
			ObservedGeneration: 4, NodeName: home, AreaID: area, Claim: 3,
			Content: &v1.ContentStatus{Claim: 3, Source: v1.SourceEmpty},
		},
	}
	s := &scope{
		ws: ws, status: ws.Status.DeepCopy(), area: area, now: noon, interval: 2 * time.Hour,
		seen: content.Observation{
			Volume:   volume.Info{ID: uid, Dir: "/v/uid-1", Path: "/v/uid-1/content", Size: 1 << 30},
			Position: volume.Published,
			Marker:   volume.Marker{UID: uid, Claim: 3, Area: area, Content: &volume.Content{Source: "Empty", Finished: noon.Add(-time.Hour)}},
			Journal:  state.Entry{UID: uid, Claim: 3},
		},
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func gone(s *scope)       { s.seen = content.Observation{} }
func unfinished(s *scope) { s.seen.Marker.Content = nil }
func deleted(s *scope)    { s.ws.DeletionTimestamp = &metav1.Time{Time: noon} }
func edited(s *scope)     { s.ws.Generation++ }

func holder(node string) func(*scope) { return func(s *scope) { s.status.NodeName = node } }

func annotated(key, value string) func(*scope) {
	return func(s *scope) { s.ws.Annotations[key] = value }
}

func backedUp(s *scope) {
	s.status.Backup = &v1.BackupStatus{Latest: &v1.BackupRecord{Name: "3.2", Hash: "h", Time: metav1.NewTime(noon.Add(-30 * time.Minute))}}
}

func TestDecideClaim(t *testing.T) {
	tests := map[string]struct {
		scope *scope
		want  takeOver
	}{
		"nobody holds it":         {running(holder("")), takeOver{claim: true}},
		"we hold it":              {running(), takeOver{}},
		"we hold it, not begun":   {running(gone, func(s *scope) { s.status.Content = nil }), takeOver{}},
		"another disk":            {running(func(s *scope) { s.area = "area-2" }), takeOver{claim: true, why: "the node has a new disk; changes since the last backup (there is none) are lost"}},
		"another disk, backed up": {running(backedUp, func(s *scope) { s.area = "area-2" }), takeOver{claim: true, why: "the node has a new disk; changes since the last backup (3.2 of 2026-03-04 11:30:00) are lost"}},
		"lost":                    {running(gone), takeOver{}},
		"lost and accepted":       {running(gone, annotated(v1.AnnotationAcceptLost, "3")), takeOver{claim: true, why: "the loss of the content was accepted; changes since the last backup (there is none) are lost"}},
		"another loss accepted":   {running(gone, annotated(v1.AnnotationAcceptLost, "2")), takeOver{}},
		"accepted, but not lost":  {running(annotated(v1.AnnotationAcceptLost, "3")), takeOver{}},
		"object from an old copy": {running(func(s *scope) { s.seen.Marker.Claim = 5 }), takeOver{claim: true, why: "the content on the node has a newer claim than the object"}},
		"another node":            {running(holder("node-b")), takeOver{wait: found("WaitingForRelease", "node node-b still holds the content")}},
		"another node, fenced": {
			running(holder("node-b"), backedUp, func(s *scope) { s.ws.Spec.FencedNode = "node-b" }),
			takeOver{claim: true, why: "node node-b is fenced; its changes since the last backup (3.2 of 2026-03-04 11:30:00) come back as a stray snapshot if it does"},
		},
		"another than the fenced": {running(holder("node-b"), func(s *scope) { s.ws.Spec.FencedNode = "node-c" }), takeOver{wait: found("WaitingForRelease", "node node-b still holds the content")}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(decideClaim(tt.scope, home)).To(Equal(tt.want))
		})
	}
}

func TestS1_DecideFarewell(t *testing.T) {
	released := func(s *scope) { s.seen.Marker.Released = "3.4" }
	discard := func(s *scope) { s.ws.Spec.Backup.OnStop = v1.StopDiscard }
	dropAll := func(s *scope) { s.ws.Spec.DeletionPolicy = v1.DeletionDelete }
	fresh := func(s *scope) { s.status.Content = nil }
	tests := map[string]struct {
		scope *scope
		want  farewell
	}{
		"in use":                     {running(), farewellSave},
		"deleted":                    {running(deleted), farewellSave},
		"released":                   {running(released), farewellDone},
		"released, then discarded":   {running(released, discard), farewellDone},
		"discarded by the spec":      {running(discard), farewellDiscard},
		"discarded by a person":      {running(annotated(v1.AnnotationDiscard, "3")), farewellDiscard},
		"discarded for another time": {running(annotated(v1.AnnotationDiscard, "2")), farewellSave},
		"discarded for any time":     {running(annotated(v1.AnnotationDiscard, "")), farewellSave},
		"deleted with its backups":   {running(deleted, dropAll), farewellDiscard},
		"stopped, policy Delete":     {running(dropAll), farewellSave},
		"never begun":                {running(gone, fresh), farewellNothing},
		"never finished":             {running(unfinished, fresh), farewellNothing},
		"of an older claim":          {running(fresh, func(s *scope) { s.seen.Marker.Claim = 2 }), farewellNothing},
		"lost":                       {running(gone), farewellLost},
		"lost the marker":            {running(unfinished), farewellLost},
		"lost the directory":         {running(func(s *scope) { s.seen.Position = "" }), farewellLost},
		"released, then lost":        {running(released, func(s *scope) { s.seen.Position = "" }), farewellDone},
		"lost directory, discarded":  {running(discard, func(s *scope) { s.seen.Position = "" }), farewellDiscard},
		"lost and accepted":          {running(gone, annotated(v1.AnnotationAcceptLost, "3")), farewellNothing},
		"lost and discarded":         {running(gone, discard), farewellNothing},
		"lost, another accepted":     {running(gone, annotated(v1.AnnotationAcceptLost, "4")), farewellLost},
		"incomplete is no release":   {running(annotated(v1.AnnotationAcceptIncomplete, "3.4")), farewellSave},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(decideFarewell(tt.scope)).To(Equal(tt.want))
		})
	}
}

func TestDecideBackup(t *testing.T) {
	period := content.Jitter(10*time.Minute, uid)
	checked := func(ago time.Duration) func(*scope) {
		return func(s *scope) { s.seen.Journal.Backup.CheckedAt = noon.Add(-ago) }
	}
	interval := func(d time.Duration) func(*scope) {
		return func(s *scope) { s.ws.Spec.Backup.Interval = &metav1.Duration{Duration: d} }
	}
	trigger := func(want, done string) func(*scope) {
		return func(s *scope) { s.ws.Spec.Backup.Trigger, s.seen.Journal.Backup.Trigger = want, done }
	}
	fenced := func(s *scope) {
		s.seen.Journal.Backup.Reason, s.seen.Journal.Backup.LastFailure = v1.ReasonFenced, noon.Add(-time.Minute)
	}
	failed := func(s *scope) { s.seen.Journal.Backup.NextAttempt = noon.Add(3 * time.Minute) }
	tests := map[string]struct {
		scope    *scope
		evacuate bool
		want     time.Time
	}{
		"an interval after the start":     {running(), false, noon.Add(-time.Hour + period)},
		"an interval after the last look": {running(checked(time.Minute)), false, noon.Add(-time.Minute + period)},
		"another interval":                {running(checked(time.Minute), interval(time.Hour)), false, noon.Add(-time.Minute + content.Jitter(time.Hour, uid))},
		"no interval given":               {running(checked(time.Minute), func(s *scope) { s.ws.Spec.Backup.Interval = nil }), false, noon.Add(-time.Minute + content.Jitter(2*time.Hour, uid))},
		"none given, none at the node":    {running(checked(time.Minute), func(s *scope) { s.ws.Spec.Backup.Interval, s.interval = nil, 0 }), false, time.Time{}},
		"turned off":                      {running(interval(0)), false, time.Time{}},
		"turned off, failed":              {running(interval(0), failed), false, time.Time{}},
		"triggered":                       {running(checked(time.Minute), trigger("b", "a")), false, noon},
		"triggered, turned off":           {running(interval(0), trigger("b", "")), false, noon},
		"honoured":                        {running(checked(time.Minute), trigger("b", "b")), false, noon.Add(-time.Minute + period)},
		"trigger taken back":              {running(checked(time.Minute), trigger("", "a")), false, noon.Add(-time.Minute + period)},
		"after a failure":                 {running(failed), false, noon.Add(3 * time.Minute)},
		"after a failure, due later":      {running(failed, checked(time.Minute)), false, noon.Add(-time.Minute + period)},
		"triggered after a failure":       {running(failed, trigger("b", "a")), false, noon.Add(3 * time.Minute)},
		"edited after a failure":          {running(failed, edited, trigger("b", "a")), false, noon},
		"fenced":                          {running(fenced, checked(time.Hour)), false, noon.Add(-time.Minute + 10*time.Minute)},
		"asked for while fenced":          {running(fenced, func(s *scope) { s.asked = true }), false, noon},
		"triggered while fenced":          {running(fenced, trigger("b", "a")), false, noon.Add(-time.Minute + 10*time.Minute)},
		"evacuated":                       {running(checked(time.Minute)), true, noon},
		"evacuated, turned off":           {running(interval(0)), true, noon},
		"evacuated after a failure":       {running(failed), true, noon.Add(3 * time.Minute)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(decideBackup(tt.scope, tt.evacuate)).To(Equal(tt.want))
		})
	}
	NewWithT(t).Expect(period).To(BeNumerically("~", 10*time.Minute, time.Minute))
}

func TestDecideBackedUp(t *testing.T) {
	fresh := noon.Add(-time.Minute)
	good := state.Backup{Name: "3.2", Complete: true, CheckedAt: fresh}
	failing := func(b state.Backup, reason string) state.Backup {
		b.Attempts, b.Failure, b.Reason = 2, "no space", reason
		b.FailingSince, b.NextAttempt = noon.Add(-5*time.Minute), noon.Add(time.Minute)
		return b
	}
	const trouble = "failing since 2026-03-04 11:55:00, attempt 2, next attempt 2026-03-04 12:01:00: no space"
	old := state.Backup{Name: "3.2", Complete: true, CheckedAt: noon.Add(-20 * time.Minute)}
	tests := map[string]struct {
		backup  state.Backup
		off     bool
		trigger string
		want    *finding
		expires time.Time
	}{
		"fresh":            {good, false, "", foundOK("UpToDate", "equal to backup 3.2"), fresh.Add(20 * time.Minute)},
		"fresh, failing":   {failing(good, ""), false, "", foundOK("UpToDate", "equal to backup 3.2; %s", trouble), fresh.Add(20 * time.Minute)},
		"overdue":          {old, false, "", found("Overdue", "the tree was last compared with backup 3.2 at 2026-03-04 11:40:00"), time.Time{}},
		"overdue, failing": {failing(old, ""), false, "", found("UploadFailed", "%s", trouble), time.Time{}},
		"failing, known":   {failing(old, "StoreUnavailable"), false, "", found("StoreUnavailable", "%s", trouble), time.Time{}},
		"none yet":         {state.Backup{}, false, "", found("NoBackupYet", "the first backup is due 10m0s after the start"), time.Time{}},
		"none, failing":    {failing(state.Backup{}, ""), false, "", found("UploadFailed", "%s", trouble), time.Time{}},
		"incomplete":       {state.Backup{Name: "3.2", CheckedAt: fresh, Problem: "cannot read a"}, false, "", found("Incomplete", "cannot read a"), time.Time{}},
		"turned off":       {good, true, "", found("Disabled", "periodic backups are turned off"), time.Time{}},
		"off, failing":     {failing(good, ""), true, "", found("Disabled", "periodic backups are turned off"), time.Time{}},
		"off, triggered":   {failing(good, ""), true, "now", found("UploadFailed", "%s", trouble), time.Time{}},
		"incomplete, off":  {state.Backup{Name: "3.2", Problem: "cannot read a"}, true, "", found("Incomplete", "cannot read a"), time.Time{}},
		"fenced":           {failing(good, "Fenced"), false, "", found("Fenced", "%s", trouble), time.Time{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := running(func(s *scope) { s.seen.Journal.Backup = tt.backup })
			s.ws.Spec.Backup.Trigger = tt.trigger
			if tt.off {
				s.ws.Spec.Backup.Interval = &metav1.Duration{}
			}
			got, expires := decideBackedUp(s)
			g.Expect(got).To(Equal(tt.want))
			g.Expect(expires).To(Equal(tt.expires))
		})
	}
}

func TestDecideClass(t *testing.T) {
	settings := Settings{Classes: map[string]config.Class{
		"default": {Driver: "directory", AllowUnlimited: true}, "strict": {Driver: "directory"},
		"limited": {Driver: "quota"}, "thin": {Driver: "lvm"},
	}}
	tests := map[string]*finding{
		"default": nil,
		"limited": nil,
		"thin":    nil,
		"strict": found("QuotaUnsupported", `the driver "directory" of class "strict" cannot limit a volume to 1Gi: `+
			"use a class that can, or set allowUnlimited for this one"),
		"fast": found("UnknownClass", `this node offers no volume class "fast", only default, limited, strict and 1 more: `+
			"add it to volumes.classes of the daemon's configuration or create the workspace with another class"),
	}
	for class, want := range tests {
		t.Run(class, func(t *testing.T) {
			got := decideClass(v1.VolumeSpec{Class: class, Size: resource.MustParse("1Gi")}, settings)
			NewWithT(t).Expect(got).To(Equal(want))
		})
	}
}

func TestVolumeThatShouldBeLimitedIsProvisionedWhenItIs(t *testing.T) {
	for _, tt := range []struct{ limitable, limited, want bool }{
		{false, false, true}, {false, true, true}, {true, false, false}, {true, true, true},
	} {
		s := running(func(s *scope) { s.limitable, s.seen.Volume.Limited = tt.limitable, tt.limited })
		NewWithT(t).Expect(s.provisioned()).To(Equal(tt.want), "%+v", tt)
	}
}

func TestReportOfAVolumeThatNothingLimits(t *testing.T) {
	g := NewWithT(t)
	s := running(func(s *scope) { s.limitable = true })
	s.reportGrowing(outcome{})
	g.Expect(s.volume).To(Equal(found("QuotaUnsupported", "/v/uid-1 is not limited")))
	s.reportGrowing(outcome{failed: true, err: fmt.Errorf("make volume: %w: no option", volume.ErrUnlimited)})
	g.Expect(s.volume).To(Equal(found("QuotaUnsupported", "make volume: %s: no option", volume.ErrUnlimited)))
	g.Expect(s.stalled).To(Equal(s.volume))
	g.Expect(s.growing).To(BeEmpty())
	g.Expect(s.notes).To(HaveLen(1))
}

func TestEscapedContentIsReported(t *testing.T) {
	g := NewWithT(t)
	s := running(func(s *scope) { s.seen.Journal.Usage.Escaped = "it is elsewhere" })
	setLimitsApplied(s)
	g.Expect(s.status.Conditions).To(ContainElement(And(
		HaveField("Type", "LimitsApplied"), HaveField("Reason", "QuotaEscaped"), HaveField("Message", "it is elsewhere"), HaveField("Status", BeEquivalentTo("False")),
	)))
}

func TestClassify(t *testing.T) {
	plain := errors.New("boom")
	tests := map[string]struct {
		err  error
		want class
	}{
		"no backup":        {&content.NoBackupError{}, class{"NoBackup", true}},
		"no secret":        {&secretError{"none"}, class{"Unauthorized", true}},
		"bad spec":         {&specError{"NoBackup", "none"}, class{"NoBackup", true}},
		"refused":          {&initializer.Error{Kind: initializer.Unauthorized}, class{"Unauthorized", true}},
		"no repository":    {&initializer.Error{Kind: initializer.NotFound}, class{"CloneFailed", true}},
		"bad repository":   {&initializer.Error{Kind: initializer.Invalid}, class{"CloneFailed", true}},
		"large repository": {&initializer.Error{Kind: initializer.Full}, class{"InsufficientCapacity", true}},
		"slow repository":  {&initializer.Error{Kind: initializer.Timeout}, class{"TimedOut", false}},
		"no network":       {&initializer.Error{Kind: initializer.Failed}, class{"CloneFailed", false}},
		"foreign":          {&volume.ForeignError{}, class{"ForeignContent", true}},
		"unknown class":    {content.ErrUnknownClass, class{"UnknownClass", true}},
		"other disk":       {volume.ErrOtherDisk, class{"AreaMissing", true}},
		"disk replaced":    {volume.ErrReplaced, class{"AreaMissing", true}},
		"no group":         {volume.ErrNoGroup, class{"VolumeGroupNotFound", false}},
		"no room":          {volume.ErrCapacity, class{"InsufficientCapacity", false}},
		"too small":        {&volume.SizeError{Size: 1, Minimum: 2}, class{"InvalidSpec", true}},
		"held":             {volume.ErrInUse, class{"InUse", false}},
		"no quota":         {volume.ErrUnlimited, class{"QuotaUnsupported", true}},
		"escaped":          {&volume.EscapedError{}, class{"QuotaEscaped", true}},
		"shrink":           {volume.ErrShrink, class{"ProvisionFailed", true}},
		"damaged backup":   {&content.DamagedError{Err: history.ErrDamaged}, class{"RestoreFailed", true}},
		"incomplete":       {&content.IncompleteError{}, class{"Incomplete", false}},
		"fenced":           {&content.FencedError{Err: plain}, class{"Fenced", false}},
		"fenced in store":  {history.ErrFenced, class{"Fenced", false}},
		"store":            {&content.StoreError{Err: plain}, class{"StoreUnavailable", false}},
		"store timed out":  {&content.StoreError{Err: context.DeadlineExceeded}, class{"StoreUnavailable", false}},
		"deadline":         {context.DeadlineExceeded, class{"TimedOut", false}},
		"job deadline":     {jobs.ErrTimeout, class{"TimedOut", false}},
		"other cluster":    {history.ErrOtherCluster, class{"StoreUnavailable", true}},
		"anything else":    {plain, class{"Fallback", false}},
		"cancelled by us":  {jobs.ErrCancelled, class{"Fallback", false}},
		"content not ours": {content.ErrNotOurs, class{"Fallback", false}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(classify(tt.err, "Fallback")).To(Equal(tt.want))
			g.Expect(classify(fmt.Errorf("while busy: %w", tt.err), "Fallback")).To(Equal(tt.want))
		})
	}
}

func TestReportStallsOnlyForWhatAPersonMustMend(t *testing.T) {
	g := NewWithT(t)
	s := running()
	g.Expect(s.report(errors.New("boom"), "Fallback")).To(Equal(found("Fallback", "boom")))
	g.Expect(s.stalled).To(BeNil())
	missing := s.report(&secretError{"there is no Secret"}, "Fallback")
	g.Expect(missing).To(Equal(found("Unauthorized", "there is no Secret")))
	g.Expect(s.stalled).To(Equal(missing))
	long := s.report(errors.New(strings.Repeat("x", 5000)), "Fallback")
	g.Expect(long.message).To(Equal(strings.Repeat("x", 2048) + "…"))
}

func TestCredentialsOf(t *testing.T) {
	const (
		web, ssh = "https://git.example.com/web.git", "ssh://git@git.example.com/web.git"
		nothing  = "Secret team/git has no key that this URL can use: add the keys username and password, or token, or bearerToken"
		noKey    = "Secret team/git lacks the key ssh-privatekey: a URL of ssh needs the keys ssh-privatekey and known_hosts"
		noHosts  = "Secret team/git lacks the key known_hosts: add the lines that ssh-keyscan prints, once you know that they are right"
		noUser   = "Secret team/git lacks the key username: it has password alone; a token goes under the key token"
		noPass   = "Secret team/git lacks the key password: it has username alone"
	)
	broken := func(key string) string {
		return "the key " + key + " of Secret team/git has a line break in it: write the value without one"
	}
	type values map[string]string
	tests := map[string]struct {
		url  string
		data values
		want *initializer.Credentials
		err  string
	}{
		"token":                  {web, values{"token": "t"}, &initializer.Credentials{Username: "x-access-token", Password: "t"}, ""},
		"password":               {web, values{"username": "u", "password": "p"}, &initializer.Credentials{Username: "u", Password: "p"}, ""},
		"all":                    {web, values{"token": "t", "username": "u", "password": "p"}, &initializer.Credentials{Username: "x-access-token", Password: "t"}, ""},
		"empty token":            {web, values{"token": "", "username": "u", "password": "p"}, &initializer.Credentials{Username: "u", Password: "p"}, ""},
		"bearer":                 {web, values{"bearerToken": "b"}, &initializer.Credentials{Bearer: "b"}, ""},
		"key":                    {ssh, values{"ssh-privatekey": "k", "known_hosts": "h"}, &initializer.Credentials{Key: "k", KnownHosts: "h"}, ""},
		"for both, by the web":   {web, values{"token": "t", "ssh-privatekey": "k\n", "known_hosts": "h\n"}, &initializer.Credentials{Username: "x-access-token", Password: "t"}, ""},
		"for both, by ssh":       {ssh, values{"token": "t\n", "ssh-privatekey": "k\n", "known_hosts": "h\n"}, &initializer.Credentials{Key: "k\n", KnownHosts: "h\n"}, ""},
		"no username":            {web, values{"password": "p"}, nil, noUser},
		"no password":            {web, values{"username": "u"}, nil, noPass},
		"empty password":         {web, values{"username": "u", "password": ""}, nil, noPass},
		"empty bearer":           {web, values{"bearerToken": ""}, nil, nothing},
		"another thing":          {web, values{"tls.key": "k"}, nil, nothing},
		"nothing":                {web, nil, nil, nothing},
		"a key for the web":      {web, values{"ssh-privatekey": "k", "known_hosts": "h"}, nil, nothing},
		"no hosts":               {ssh, values{"ssh-privatekey": "k"}, nil, noHosts},
		"empty hosts":            {ssh, values{"ssh-privatekey": "k", "known_hosts": ""}, nil, noHosts},
		"no key":                 {ssh, values{"known_hosts": "h"}, nil, noKey},
		"a password for ssh":     {ssh, values{"username": "u", "password": "p"}, nil, noKey},
		"nothing for ssh":        {ssh, nil, nil, noKey},
		"token with a line":      {web, values{"token": "s3cret\n"}, nil, broken("token")},
		"bearer with a line":     {web, values{"bearerToken": "s3cret\r\nHost: evil"}, nil, broken("bearerToken")},
		"username with a line":   {web, values{"username": "s3cret\n", "password": "p"}, nil, broken("username")},
		"password with a line":   {web, values{"username": "u", "password": "s3cret\nhost=evil"}, nil, broken("password")},
		"password with a zero":   {web, values{"username": "u", "password": "s3\x00cret"}, nil, broken("password")},
		"a line where no one is": {web, values{"username": "u", "password": "p", "other": "a\nb"}, &initializer.Credentials{Username: "u", Password: "p"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			data := map[string][]byte{}
			for key, value := range tt.data {
				data[key] = []byte(value)
			}
			got, err := credentialsOf("team/git", tt.url, data)
			g.Expect(got).To(Equal(tt.want))
			if tt.err != "" {
				g.Expect(err).To(MatchError(tt.err))
				g.Expect(classify(err, "")).To(Equal(class{v1.ReasonUnauthorized, true}))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
}

func TestWorkspaceOfPod(t *testing.T) {
	g := NewWithT(t)
	pod := func(labels map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "p", Labels: labels}}
	}
	g.Expect(workspaceOfPod(t.Context(), pod(map[string]string{v1.LabelWorkspace: "web"}))).
		To(Equal([]ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: "team", Name: "web"}}}))
	g.Expect(workspaceOfPod(t.Context(), pod(map[string]string{"app": "web"}))).To(BeNil())
	g.Expect(workspaceOfPod(t.Context(), pod(nil))).To(BeNil())
}

func TestListNamesAtMostThree(t *testing.T) {
	g := NewWithT(t)
	g.Expect(list(nil)).To(BeEmpty())
	g.Expect(list([]string{"a", "b", "c"})).To(Equal("a, b, c"))
	g.Expect(list([]string{"a", "b", "c", "d", "e"})).To(Equal("a, b, c and 2 more"))
}

func TestExpectedBackup(t *testing.T) {
	g := NewWithT(t)
	g.Expect(expected(&v1.WorkspaceStatus{})).To(Equal(history.Ref{}))
	g.Expect(expected(running(backedUp).status)).To(Equal(history.Ref{Name: history.Name{Claim: 3, Number: 2}, Hash: "h"}))
}
