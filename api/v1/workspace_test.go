package v1_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

const minimal = "volume: {size: 1Gi}"

func TestDefaultsOfTheMinimalWorkspace(t *testing.T) {
	s := newServer(t)
	o := s.create(t, "minimal", minimal)
	s.Expect(o.Object["spec"]).To(BeEquivalentTo(map[string]any{
		"state":          "Running",
		"owner":          map[string]any{"uid": int64(33333), "gid": int64(33333)},
		"volume":         map[string]any{"class": "default", "size": "1Gi"},
		"initializer":    map[string]any{"empty": map[string]any{}},
		"backup":         map[string]any{"onStop": "Backup", "keep": map[string]any{"last": int64(5), "daily": int64(7)}},
		"deletionPolicy": "Retain",
	}))
	s.Expect(o.Object).NotTo(HaveKey("status"))
}

func TestDefaultsInsideGivenParts(t *testing.T) {
	tests := map[string]struct {
		spec, part string
		want       any
	}{
		"owner":  {"owner: {uid: 0}", "owner", map[string]any{"uid": int64(0), "gid": int64(33333)}},
		"backup": {"backup: {trigger: x}", "backup", map[string]any{"onStop": "Backup", "trigger": "x", "keep": map[string]any{"last": int64(5), "daily": int64(7)}}},
		"keep":   {"backup: {keep: {daily: 0}}", "backup", map[string]any{"onStop": "Backup", "keep": map[string]any{"last": int64(5), "daily": int64(0)}}},
		"git":    {"initializer: {git: {url: 'https://example.com/a'}}", "initializer", map[string]any{"git": map[string]any{"url": "https://example.com/a"}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			o := s.create(t, name, minimal+", "+tt.spec)
			s.Expect(o.Object["spec"]).To(HaveKeyWithValue(tt.part, tt.want))
		})
	}
}

// A client that knows the types sends what it means, and nothing by accident.
func TestTypedWorkspaceGoesAndComesUnchanged(t *testing.T) {
	s := newServer(t)
	daily, zero := int32(0), int64(0)
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "typed"},
		Spec: v1.WorkspaceSpec{
			State: v1.StateStopped, Volume: v1.VolumeSpec{Class: "default", Size: resource.MustParse("2Gi")},
			Owner:       v1.Owner{UID: 1000, GID: 0},
			Initializer: v1.Initializer{Backup: &v1.BackupInitializer{}},
			Backup:      v1.BackupSpec{Interval: &metav1.Duration{}, OnStop: v1.StopDiscard, Keep: v1.Keep{Last: 1, Daily: &daily}},
			Limits:      &v1.Limits{IO: &v1.IOLimits{}}, DeletionPolicy: v1.DeletionDelete,
		},
	}
	sent := ws.Spec.DeepCopy()
	s.Expect(s.Create(t.Context(), ws)).To(Succeed())
	var got v1.Workspace
	s.Expect(s.Get(t.Context(), client.ObjectKeyFromObject(ws), &got)).To(Succeed())
	s.Expect(got.Spec).To(BeComparableTo(*sent))
	s.Expect(got.Spec.Owner.GID).To(Equal(zero))
}

func TestNamesOfWorkspacesAreLimited(t *testing.T) {
	s := newServer(t)
	s.verdict(s.Create(t.Context(), s.object("Workspace", strings.Repeat("a", 63), minimal)), "")
	s.verdict(s.Create(t.Context(), s.object("Workspace", strings.Repeat("a", 64), minimal)),
		"the name of a workspace has at most 63 characters")
	s.verdict(s.Create(t.Context(), s.object("Workspace", "Upper", minimal)), "a lowercase RFC 1123 subdomain")
}

func TestWorkspaceSpecIsValidated(t *testing.T) {
	const (
		badURL    = "spec.initializer.git.url in body should match '^(https?://|ssh://([A-Za-z0-9_][A-Za-z0-9._-]*@)?)[^\\s/?#@]+(/[^\\s?#]*)?$'"
		badPlace  = "checkoutLocation must be a relative path without '..' or '.git'"
		badBranch = "spec.initializer.git.target.branch in body should match"
		badPeriod = "interval must be 0s (off) or between 1s and 168h"
	)
	git := func(more string) string {
		return minimal + ", initializer: {git: {url: 'https://example.com/r.git'" + more + "}}"
	}
	url := func(url string) string { return minimal + ", initializer: {git: {url: '" + url + "'}}" }
	download := func(more string) string {
		return minimal + ", initializer: {download: {url: 'https://example.com/f', " + more + "}}"
	}
	prebuild := func(snapshot, git string) string {
		return minimal + ", initializer: {prebuild: {snapshot: " + snapshot + ", git: " + git + "}}"
	}
	const (
		gitStep      = "{git: {url: 'https://example.com/r.git'}}"
		snapshotStep = "{snapshot: {id: p.1.2}}"
	)
	composite := func(steps ...string) string {
		return minimal + ", initializer: {composite: [" + strings.Join(steps, ", ") + "]}"
	}
	branch := func(name string) string { return git(", target: {branch: '" + name + "'}") }
	place := func(path string) string { return git(", checkoutLocation: '" + path + "'") }
	interval := func(d string) string { return minimal + ", backup: {interval: " + d + "}" }
	tests := map[string]struct{ spec, want string }{
		"no volume":     {"state: Running", "spec.volume: Required value"},
		"no size":       {"volume: {class: default}", "spec.volume.size: Required value"},
		"size zero":     {"volume: {size: 0}", "size must be greater than zero"},
		"size 0Gi":      {"volume: {size: 0Gi}", "size must be greater than zero"},
		"size negative": {"volume: {size: -1Gi}", "size must be greater than zero"},
		"size no size":  {"volume: {size: big}", "spec.volume.size in body should match"},
		"size in bytes": {"volume: {size: 1048576}", ""},
		"class empty":   {"volume: {size: 1Gi, class: ''}", "spec.volume.class in body should be at least 1 chars long"},
		"class long":    {"volume: {size: 1Gi, class: " + strings.Repeat("c", 64) + "}", "may not be more than 63 bytes"},
		"inodes few":    {"volume: {size: 1Gi, inodes: 99}", "spec.volume.inodes in body should be greater than or equal to 100"},
		"inodes":        {"volume: {size: 1Gi, inodes: 100}", ""},
		"state":         {minimal + ", state: Paused", `Unsupported value: "Paused": supported values: "Running", "Stopped"`},
		"unknown key":   {minimal + ", colour: red", ""},

		"uid negative": {minimal + ", owner: {uid: -1}", "spec.owner.uid in body should be greater than or equal to 0"},
		"uid nobody":   {minimal + ", owner: {uid: 4294967295}", "spec.owner.uid in body should be less than or equal to 4294967294"},

		"two initializers":  {minimal + ", initializer: {empty: {}, backup: {}}", "exactly one of the fields in [empty git backup snapshot prebuild download composite] must be set"},
		"no initializer":    {minimal + ", initializer: {}", "exactly one of the fields in [empty git backup snapshot prebuild download composite] must be set"},
		"snapshot nameless": {minimal + ", initializer: {snapshot: {}}", "exactly one of the fields in [name id] must be set"},
		"snapshot both":     {minimal + ", initializer: {snapshot: {name: a, id: b}}", "exactly one of the fields in [name id] must be set"},
		"snapshot id":       {minimal + ", initializer: {snapshot: {id: ../../etc}}", "spec.initializer.snapshot.id in body should match"},
		"snapshot id ok":    {minimal + ", initializer: {snapshot: {id: stray.ws-1.7.2}}", ""},

		"url https":            {url("https://example.com/r.git"), ""},
		"url port":             {url("https://example.com:8443/r.git"), ""},
		"url ssh":              {url("ssh://example.com/r.git"), ""},
		"url empty":            {url(""), "spec.initializer.git.url in body should be at least 1 chars long"},
		"url without scheme":   {url("example.com/r.git"), badURL},
		"url scp":              {url("git@example.com:r.git"), badURL},
		"url file":             {url("file:///etc"), badURL},
		"url ext":              {url("ext::sh -c id"), badURL},
		"url transport":        {url("https::https://example.com/r"), badURL},
		"url credentials":      {url("https://me:secret@example.com/r.git"), badURL},
		"url user":             {url("https://me@example.com/r.git"), badURL},
		"url option":           {url("--upload-pack=/bin/sh"), badURL},
		"url space":            {url("https://example.com/a b"), badURL},
		"url long":             {url("https://example.com/" + strings.Repeat("a", 2048)), "may not be more than 2048 bytes"},
		"url ssh user":         {url("ssh://git@example.com:2222/r.git"), ""},
		"url ssh password":     {url("ssh://git:secret@example.com/r.git"), badURL},
		"depth":                {git(", depth: 1"), ""},
		"depth zero":           {git(", depth: 0"), "spec.initializer.git.depth in body should be greater than or equal to 1"},
		"filter":               {git(", filter: 'blob:limit=1m'"), ""},
		"filter other":         {git(", filter: 'tree:0'"), "spec.initializer.git.filter in body should match"},
		"sparse":               {git(", sparse: [src/web, docs]"), ""},
		"sparse option":        {git(", sparse: ['--stdin']"), "spec.initializer.git.sparse[0] in body should match"},
		"sparse pattern":       {git(", sparse: ['src/*']"), "spec.initializer.git.sparse[0] in body should match"},
		"sparse absolute":      {git(", sparse: [/etc]"), "spec.initializer.git.sparse[0] in body should match"},
		"download":             {download("path: f"), ""},
		"download unpacked":    {download("unpack: true"), ""},
		"download nowhere":     {download("digest: 'sha256:" + strings.Repeat("a", 64) + "'"), "path is needed, unless the file is unpacked"},
		"download up":          {download("path: a/../../f"), "path must be a relative path without '..'"},
		"download absolute":    {download("path: /etc/f"), "path must be a relative path without '..'"},
		"download digest":      {download("path: f, digest: 'md5:0'"), "spec.initializer.download.digest in body should match"},
		"prebuild":             {prebuild("{id: p.1.2}", "[{url: 'https://example.com/r.git'}]"), ""},
		"prebuild of nothing":  {prebuild("{id: p.1.2}", "[]"), "spec.initializer.prebuild.git in body should have at least 1 items"},
		"prebuild nameless":    {prebuild("{}", "[{url: 'https://example.com/r.git'}]"), "exactly one of the fields in [name id] must be set"},
		"steps":                {composite(snapshotStep, gitStep, gitStep), ""},
		"steps of none":        {composite(), "spec.initializer.composite in body should have at least 1 items"},
		"steps without number": {composite(strings.Split(strings.Repeat(gitStep+";", 17), ";")[:17]...), "must have at most 16 items"},
		"steps out of order":   {composite(gitStep, snapshotStep), "only the first step may restore a snapshot or prebuild"},
		"two snapshots":        {composite(snapshotStep, snapshotStep), "only the first step may restore a snapshot or prebuild"},
		"step of nothing":      {composite("{}"), "exactly one of the fields in [git snapshot prebuild download] must be set"},
		"target of two":        {git(", target: {branch: a, commit: " + strings.Repeat("a", 40) + "}"), "exactly one of the fields in [branch localBranch commit] must be set"},
		"target of none":       {git(", target: {}"), "exactly one of the fields in [branch localBranch commit] must be set"},
		"commit sha1":          {git(", target: {commit: " + strings.Repeat("a", 40) + "}"), ""},
		"commit sha256":        {git(", target: {commit: " + strings.Repeat("a", 64) + "}"), ""},
		"commit short":         {git(", target: {commit: " + strings.Repeat("a", 39) + "}"), "spec.initializer.git.target.commit in body should match"},
		"commit upper":         {git(", target: {commit: " + strings.Repeat("A", 40) + "}"), "spec.initializer.git.target.commit in body should match"},
		"commit name":          {git(", target: {commit: HEAD}"), "spec.initializer.git.target.commit in body should match"},
		"branch":               {branch("feature/x_1.2"), ""},
		"branch option":        {branch("-b"), badBranch},
		"branch space":         {branch("a b"), badBranch},
		"branch range":         {branch("a^b"), badBranch},
		"branch refspec":       {branch("a:b"), badBranch},
		"branch glob":          {branch("a*"), badBranch},
		"branch backslash":     {branch(`a\b`), badBranch},
		"local branch option":  {git(", target: {localBranch: '-b'}"), "spec.initializer.git.target.localBranch in body should match"},
		"place":                {place("web/src"), ""},
		"place dots":           {place("a..b"), ""},
		"place up":             {place("../x"), badPlace},
		"place up inside":      {place("a/../../x"), badPlace},
		"place absolute":       {place("/etc"), badPlace},
		"place git":            {place("a/.git"), badPlace},
		"secret nameless":      {git(", authSecretRef: {name: ''}"), "spec.initializer.git.authSecretRef.name in body should be at least 1 chars long"},
		"secret without name":  {git(", authSecretRef: {}"), "spec.initializer.git.authSecretRef.name: Required value"},
		"interval off":         {interval("0s"), ""},
		"interval shortest":    {interval("1s"), ""},
		"interval longest":     {interval("168h"), ""},
		"interval mixed":       {interval("1h30m"), ""},
		"interval too short":   {interval("999ms"), badPeriod},
		"interval too long":    {interval("168h1s"), badPeriod},
		"interval negative":    {interval("-1m"), "spec.backup.interval in body should match"},
		"interval number":      {interval("600"), "spec.backup.interval in body must be of type string"},
		"interval days":        {interval("1d"), "spec.backup.interval in body should match"},
		"on stop":              {minimal + ", backup: {onStop: Drop}", `Unsupported value: "Drop": supported values: "Backup", "Discard"`},
		"keep none":            {minimal + ", backup: {keep: {last: 0}}", "spec.backup.keep.last in body should be greater than or equal to 1"},
		"keep one":             {minimal + ", backup: {keep: {last: 1, daily: 0}}", ""},
		"keep too many":        {minimal + ", backup: {keep: {last: 1001}}", "spec.backup.keep.last in body should be less than or equal to 1000"},
		"keep days negative":   {minimal + ", backup: {keep: {daily: -1}}", "spec.backup.keep.daily in body should be greater than or equal to 0"},
		"trigger long":         {minimal + ", backup: {trigger: " + strings.Repeat("t", 129) + "}", "may not be more than 128 bytes"},
		"restore":              {minimal + ", restore: {backup: '7.40', request: try-1}", ""},
		"restore other":        {minimal + ", restore: {backup: 7-40, request: try-1}", "spec.restore.backup in body should match '^[0-9]{1,18}\\.[0-9]{1,18}$'"},
		"restore path":         {minimal + ", restore: {backup: ../1.2, request: try-1}", "spec.restore.backup in body should match"},
		"restore huge":         {minimal + ", restore: {backup: '1234567890123456789.1', request: try-1}", "spec.restore.backup in body should match"},
		"restore for nothing":  {minimal + ", restore: {backup: '7.40', request: ''}", "spec.restore.request in body should be at least 1 chars long"},
		"restore no request":   {minimal + ", restore: {backup: '7.40'}", "spec.restore.request: Required value"},
		"limits empty":         {minimal + ", limits: {}", "spec.limits in body should have at least 1 properties"},
		"limits pids":          {minimal + ", limits: {pids: 0}", "spec.limits.pids in body should be greater than or equal to 1"},
		"limits":               {minimal + ", limits: {cpu: {min: 1, burst: '4'}, pids: 4096, io: {readBps: 100Mi}, network: {connectionsPerMinute: 3000}}", ""},
		"deletion policy":      {minimal + ", deletionPolicy: Keep", `Unsupported value: "Keep": supported values: "Retain", "Delete"`},
		"fenced itself":        {minimal + ", nodeName: node-a, fencedNode: node-a", "fencedNode must differ from nodeName: a node cannot hold content and be fenced off it"},
		"fenced other":         {minimal + ", nodeName: node-a, fencedNode: node-b", ""},
		"fenced without node":  {minimal + ", fencedNode: node-b", ""},
		"both names empty":     {minimal + ", nodeName: '', fencedNode: ''", ""},
		"node name long":       {minimal + ", nodeName: " + strings.Repeat("n", 254), "may not be more than 253 bytes"},
		"node name as allowed": {minimal + ", nodeName: " + strings.Repeat("n", 253), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.verdict(s.Create(t.Context(), s.object("Workspace", "ws", tt.spec), client.DryRunAll), tt.want)
		})
	}
}

func TestWorkspaceSpecChangesAreValidated(t *testing.T) {
	const (
		inodes = "volume: {size: 1Gi, inodes: 2000}, initializer: {empty: {}}"
		onA    = minimal + ", nodeName: node-a"
		held   = "nodeName: node-a, claim: 1"
		stay   = "spec.nodeName may change only when no node holds the content: set spec.state to Stopped and wait until status.nodeName is empty, or name the dead node in spec.fencedNode"
	)
	tests := map[string]struct{ spec, status, change, want string }{
		"size grows":                  {minimal, "", "volume: {size: 2Gi}", ""},
		"size written otherwise":      {minimal, "", "volume: {size: 1024Mi}", ""},
		"size shrinks":                {minimal, "", "volume: {size: 1023Mi}", "size may grow but never shrink"},
		"size to zero":                {minimal, "", "volume: {size: 0}", "size must be greater than zero"},
		"inodes grow":                 {inodes, "", "volume: {inodes: 2001}", ""},
		"inodes shrink":               {inodes, "", "volume: {inodes: 1999}", "inodes may grow but never shrink"},
		"inodes unlimited":            {inodes, "", "volume: {inodes: null}", ""},
		"inodes limited":              {minimal, "", "volume: {inodes: 2000}", ""},
		"class":                       {minimal, "", "volume: {class: fast}", "class cannot change; create another workspace from a snapshot of this one"},
		"class left out":              {minimal, "", "volume: {class: null}", ""},
		"node while free":             {onA, "", "nodeName: node-b", ""},
		"node after release":          {onA, "claim: 1", "nodeName: node-b", ""},
		"node while held":             {onA, held, "nodeName: node-b", stay},
		"node away while held":        {onA, held, "nodeName: null", stay},
		"node emptied while held":     {onA, held, "nodeName: ''", stay},
		"node with its holder fenced": {onA, held, "nodeName: node-b, fencedNode: node-a", ""},
		"node with another fenced":    {onA, held, "nodeName: node-b, fencedNode: node-c", stay},
		"node is fenced itself":       {onA, held, "nodeName: node-b, fencedNode: node-b", "fencedNode must differ from nodeName"},
		"holder fenced, node kept":    {onA, held, "fencedNode: node-a", "fencedNode must differ from nodeName"},
		"other changes while held":    {onA, held, "state: Stopped", ""},
		"trigger while held":          {onA, held, "backup: {trigger: now}", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			o := s.create(t, "ws", tt.spec)
			if tt.status != "" {
				s.Expect(s.patchStatus(t, o, tt.status)).To(Succeed())
			}
			s.verdict(s.patch(t, o, "spec: {"+tt.change+"}"), tt.want)
		})
	}
}

// Back to the node that holds the content is always allowed: nothing moves.
func TestNodeNameMayGoBackToTheHolder(t *testing.T) {
	s := newServer(t)
	o := s.create(t, "ws", minimal+", nodeName: node-a")
	s.Expect(s.patchStatus(t, o, "nodeName: node-a, claim: 1")).To(Succeed())
	s.verdict(s.patch(t, o, "spec: {nodeName: node-b, fencedNode: node-a}"), "")
	s.verdict(s.patch(t, o, "spec: {nodeName: node-a, fencedNode: null}"), "")
}

func TestStatusChangesAreValidated(t *testing.T) {
	const (
		foreign = "status.nodeName may change only to spec.nodeName or to empty"
		back    = "status.claim never goes back"
	)
	tests := map[string]struct{ before, change, want string }{
		"claimed by the named node": {"", "nodeName: node-a, claim: 1", ""},
		"claimed by another":        {"", "nodeName: node-b, claim: 1", foreign},
		"taken over by another":     {"nodeName: node-a, claim: 1", "nodeName: node-b, claim: 2", foreign},
		"released":                  {"nodeName: node-a, claim: 1", "nodeName: null", ""},
		"emptied":                   {"nodeName: node-a, claim: 1", "nodeName: ''", ""},
		"claim grows":               {"claim: 1", "claim: 5", ""},
		"claim stays":               {"claim: 1", "observedGeneration: 2", ""},
		"claim shrinks":             {"claim: 5", "claim: 4", back},
		"claim is dropped":          {"claim: 5", "claim: null", back},
		"source":                    {"", "content: {source: Magic}", `Unsupported value: "Magic"`},
		"operation":                 {"", "operation: {type: Dance}", `Unsupported value: "Dance"`},
		"backup name":               {"", "backup: {latest: {name: seven}}", "backup.latest.name in body should match '^[0-9]{1,18}\\.[0-9]{1,18}$'"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			o := s.create(t, "ws", minimal+", nodeName: node-a")
			if tt.before != "" {
				s.Expect(s.patchStatus(t, o, tt.before)).To(Succeed())
			}
			s.verdict(s.patchStatus(t, o, tt.change), tt.want)
		})
	}
}

// The old node wakes up after the take-over and writes what it believes.
func TestS4_LateStatusWriteOfAFencedNodeIsRefused(t *testing.T) {
	s := newServer(t)
	o := s.create(t, "ws", minimal+", nodeName: node-a")
	s.Expect(s.patchStatus(t, o, "nodeName: node-a, claim: 1")).To(Succeed())
	s.Expect(s.patch(t, o, "spec: {nodeName: node-b, fencedNode: node-a}")).To(Succeed())
	s.Expect(s.patchStatus(t, o, "nodeName: node-a, observedGeneration: 1")).To(Succeed(), "until somebody else holds it, it is still the holder")
	s.Expect(s.patchStatus(t, o, "nodeName: node-b, claim: 2")).To(Succeed())

	s.verdict(s.patchStatus(t, o, "nodeName: node-a, claim: 2"), "status.nodeName may change only to spec.nodeName or to empty")
	s.verdict(s.patchStatus(t, o, "nodeName: node-a, claim: 1"), "status.claim never goes back")
	s.verdict(s.patchStatus(t, o, "nodeName: node-a, claim: 3"), "status.nodeName may change only to spec.nodeName or to empty")

	var ws v1.Workspace
	s.Expect(s.Get(t.Context(), client.ObjectKeyFromObject(o), &ws)).To(Succeed())
	s.Expect([]any{ws.Status.NodeName, ws.Status.Claim}).To(Equal([]any{"node-b", int64(2)}))
}

func TestRulesHoldForTheWholeObject(t *testing.T) {
	s := newServer(t)
	o := s.create(t, "ws", minimal+", nodeName: node-a")
	s.Expect(s.patchStatus(t, o, "nodeName: node-a, claim: 1")).To(Succeed())
	s.verdict(s.patch(t, o, "status: {nodeName: node-b, claim: 0}"), "")
	var ws v1.Workspace
	s.Expect(s.Get(t.Context(), client.ObjectKeyFromObject(o), &ws)).To(Succeed())
	s.Expect(ws.Status.NodeName).To(Equal("node-a"), "the status is out of reach of who may only write the object")
	s.Expect(ws.Status.Claim).To(Equal(int64(1)))
	s.verdict(s.Status().Patch(t.Context(), o.DeepCopy(), s.merge("status: null")), "status.claim never goes back")
}

func TestConditionsAreLimitedAndUnique(t *testing.T) {
	s := newServer(t)
	o := s.create(t, "ws", minimal)
	condition := "{type: Ready, status: 'True', reason: Running, message: '', lastTransitionTime: '2026-01-02T03:04:05Z'}"
	s.verdict(s.patchStatus(t, o, "conditions: ["+condition+"]"), "")
	s.verdict(s.patchStatus(t, o, "conditions: ["+condition+", "+condition+"]"), "status.conditions[1]: Duplicate value")
	s.verdict(s.patchStatus(t, o, "conditions: [{type: Ready, status: 'Yes'}]"), "status.conditions[0].reason: Required value")
}
