package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/config"
)

const complete = `{
  "content": {"workingArea": "/var/lib/ws-daemon"},
  "storage": {"kind": "filesystem", "filesystem": {"path": "/mnt/store"}},
  "volumes": {"classes": {"default": {"driver": "directory", "allowUnlimited": true}}}
}`

func TestSmallestConfigurationGetsTheDefaults(t *testing.T) {
	g := NewWithT(t)
	got, err := config.Parse([]byte(complete))
	g.Expect(err).NotTo(HaveOccurred())

	want := config.Default()
	want.Content.WorkingArea = "/var/lib/ws-daemon"
	want.Storage = config.Storage{Kind: "filesystem", Filesystem: &config.Filesystem{Path: "/mnt/store"}}
	want.Volumes.Classes = map[string]config.Class{"default": {Driver: "directory", AllowUnlimited: true}}
	g.Expect(got).To(Equal(want))
	g.Expect(got.Storage.URL()).To(Equal("file:///mnt/store"))
}

func TestClassOfLVM(t *testing.T) {
	g := NewWithT(t)
	text := `{"driver": "lvm", "volumeGroup": "ws", "thinPool": "pool", "filesystem": "ext4", "overcommit": true, "templates": 4, "minSize": "1Gi"}`
	c, err := config.Parse([]byte(strings.Replace(complete, `{"driver": "directory", "allowUnlimited": true}`, text, 1)))
	g.Expect(err).NotTo(HaveOccurred())
	got := c.Volumes.Classes["default"]
	g.Expect(got).To(Equal(config.Class{Driver: "lvm", Overcommit: new(true), LVM: config.LVM{
		VolumeGroup: "ws", ThinPool: "pool", Filesystem: "ext4", Templates: 4, MinSize: 1 << 30,
	}}))
	g.Expect(got.CanLimit()).To(BeTrue())
}

func TestOvercommit(t *testing.T) {
	for driver, want := range map[string]bool{config.DriverDirectory: true, config.DriverQuota: false, config.DriverLVM: false} {
		g := NewWithT(t)
		g.Expect(config.Class{Driver: driver}.Overcommits()).To(Equal(want), driver)
		for _, says := range []bool{true, false} {
			g.Expect(config.Class{Driver: driver, Overcommit: &says}.Overcommits()).To(Equal(says), driver)
		}
	}
}

// What is documented as the default must be the default.
func TestDefaults(t *testing.T) {
	g := NewWithT(t)
	d := config.Default()
	g.Expect(d.Content.Backup.Interval.Duration).To(Equal(10 * time.Minute))
	g.Expect(d.Content.StrayRetention.Duration).To(Equal(30 * 24 * time.Hour))
	g.Expect(d.Content.OrphanGrace.Duration).To(Equal(24 * time.Hour))
	g.Expect(d.Content.TombstoneGrace.Duration).To(Equal(7 * 24 * time.Hour))
	g.Expect(d.Content.AdoptCluster).To(BeFalse())
	g.Expect(d.Content.Git).To(Equal(config.Git{Program: "git", AllowedSchemes: []string{"https"}}))
	g.Expect(d.Content.Egress.Deny).To(Equal([]string{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "::/128", "::1/128", "fe80::/10", "fd00:ec2::/32"}))
	g.Expect(d.Content.Egress.Networks()).To(HaveLen(7))
	g.Expect(d.Limits).To(Equal(config.Limits{
		Initialize: 4, Backup: 2, FinalBackup: 4, Maintain: 8, Store: config.StoreLimits{Requests: 64, Memory: 512 << 20},
	}))
	g.Expect(d.Node).To(Equal(config.Node{
		ReservePercent: 5, ProtectFromScaleDown: true,
		Pressure: config.Pressure{
			Bytes: config.Threshold{Set: 90, Clear: 85}, Inodes: config.Threshold{Set: 90, Clear: 85},
			ThinData: config.Threshold{Set: 85, Clear: 80}, ThinMetadata: config.Threshold{Set: 80, Clear: 70},
		},
	}))
	g.Expect(d.Log).To(Equal(config.Log{Level: "info", Format: "json"}))
}

// A node may make no periodic backups but of those workspaces that ask for them.
func TestNoBackupsByDefault(t *testing.T) {
	g := NewWithT(t)
	c, err := config.Parse([]byte(strings.Replace(complete, `"content": {`, `"content": {"backup": {"interval": "0s"}, `, 1)))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(c.Content.Backup.Interval.Duration).To(BeZero())
}

// One threshold of a pair may be left out.
func TestPressureOverridesDefaults(t *testing.T) {
	g := NewWithT(t)
	text := `"node": {"pressure": {"bytes": {"set": 95}, "thinData": {"clear": 50}}, "protectFromScaleDown": false}, "storage"`
	c, err := config.Parse([]byte(strings.Replace(complete, `"storage"`, text, 1)))
	g.Expect(err).NotTo(HaveOccurred())
	want := config.Default().Node
	want.Pressure.Bytes.Set, want.Pressure.ThinData.Clear, want.ProtectFromScaleDown = 95, 50, false
	g.Expect(c.Node).To(Equal(want))
}

func TestExampleIsValidAndHasEveryKey(t *testing.T) {
	g := NewWithT(t)
	data, err := json.MarshalIndent(config.Example(), "", "  ")
	g.Expect(err).NotTo(HaveOccurred())
	got, err := config.Parse(data)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got).To(Equal(config.Example()))
}

func TestParseRefusesWhatItDoesNotUnderstand(t *testing.T) {
	with := func(old, replacement string) string {
		if !strings.Contains(complete, old) {
			panic(old)
		}
		return strings.Replace(complete, old, replacement, 1)
	}
	const area, classes = `"workingArea": "/var/lib/ws-daemon"`, `{"default": {"driver": "directory", "allowUnlimited": true}}`
	quota := func(first, last int) string {
		return fmt.Sprintf(`{"default": {"driver": "quota", "projects": {"first": %d, "last": %d}}}`, first, last)
	}
	timeouts := func(text string) string { return with(area, area+`, "timeouts": {`+text+`}`) }
	backup := func(text string) string { return with(area, area+`, "backup": {`+text+`}`) }
	node := func(keys string) string { return with(`"storage"`, `"node": {`+keys+`}, "storage"`) }
	limits := func(text string) string { return with(`"storage"`, `"limits": {"store": {`+text+`}}, "storage"`) }
	lvm := func(text string) string { return with(classes, `{"default": {"driver": "lvm", `+text+`}}`) }
	log := func(text string) string { return with(`"storage"`, `"log": {`+text+`}, "storage"`) }
	metrics := func(text string) string { return with(`"storage"`, `"metrics": {`+text+`}, "storage"`) }
	tests := map[string]struct{ text, want string }{
		"nothing":                {"", "line 1: the file is empty: `ws-daemon config example` prints one that is not"},
		"only space":             {"\n \n", "line 1: the file is empty: `ws-daemon config example` prints one that is not"},
		"no object":              {"[]", "line 1: a configuration is a JSON object, {…}, not []"},
		"a text":                 {`"content"`, `line 1: a configuration is a JSON object, {…}, not "content"`},
		"YAML":                   {"content:\n  workingArea: /x\n", "line 1: this is not JSON: invalid character 'c' looking for beginning of value"},
		"cut off":                {"{\n\"content\": {", "line 2: this is not JSON: unexpected end of JSON input"},
		"two":                    {complete + "\n{}", "line 6: this is not JSON: invalid character '{' after top-level value"},
		"comment":                {"{\n# no\n}", "line 2: this is not JSON: invalid character '#' looking for beginning of object key string"},
		"comma at the end":       {"{\"log\": {},\n}", "line 2: this is not JSON: invalid character '}' looking for beginning of object key string"},
		"byte order mark":        {"\xef\xbb\xbf{}", "line 1: the file begins with a byte order mark: save it as plain UTF-8"},
		"no text":                {"{\n\"a\": \"\xff\"}", "line 2: this is not UTF-8 text"},
		"zeros":                  {"{\x00}", "line 1: this is not JSON: invalid character '\\x00' looking for beginning of object key string"},
		"unknown key":            {with(`"workingArea"`, `"workDir"`), `line 2: content.workDir: there is no such key; there are workingArea, backup, strayRetention, orphanGrace, tombstoneGrace, collect, adoptCluster, git, egress, sandbox, timeouts`},
		"a typing error":         {with(`"workingArea"`, `"workingarea"`), `line 2: content.workingarea: there is no such key; did you mean workingArea?`},
		"unknown section":        {with(`"storage"`, `"storages"`), `line 3: storages: there is no such key; did you mean storage?`},
		"unknown class key":      {with(`"allowUnlimited"`, `"allowunlimited"`), `line 4: volumes.classes.default.allowunlimited: there is no such key; did you mean allowUnlimited?`},
		"second time":            {with(`"driver"`, `"driver": "quota", "driver"`), `line 4: volumes.classes.default.driver: stands here a second time`},
		"a section twice":        {with(`"storage"`, `"content": {}, "storage"`), `line 3: content: stands here a second time`},
		"null":                   {with(`"/mnt/store"`, "null"), "line 3: storage.filesystem.path: null says nothing: leave the key out"},
		"null for a section":     {with(`"storage"`, `"limits": null, "storage"`), "line 3: limits: null says nothing: leave the key out"},
		"number for a text":      {with(`"/mnt/store"`, "7"), "line 3: storage.filesystem.path: must be a text in quotes, not 7"},
		"text for a number":      {with(`"storage"`, `"limits": {"backup": "2"}, "storage"`), `line 3: limits.backup: must be a whole number (int), not "2"`},
		"fraction":               {with(`"storage"`, `"limits": {"backup": 2.5}, "storage"`), `line 3: limits.backup: must be a whole number (int), not 2.5`},
		"too large a number":     {with(`"storage"`, `"limits": {"backup": 1e30}, "storage"`), `line 3: limits.backup: must be a whole number (int), not 1e30`},
		"text for a bool":        {with("true", `"yes"`), `line 4: volumes.classes.default.allowUnlimited: must be true or false, not "yes"`},
		"text for an object":     {with(`{"kind": "filesystem", "filesystem": {"path": "/mnt/store"}}`, `"file:///mnt"`), `line 3: storage: must be an object, {…}, not "file:///mnt"`},
		"text for a list":        {with(area, area+`, "git": {"allowedSchemes": "https"}`), `line 2: content.git.allowedSchemes: must be a list, […], not "https"`},
		"number in a list":       {with(area, area+`, "git": {"allowedSchemes": ["https", 7]}`), `line 2: content.git.allowedSchemes[1]: must be a text in quotes, not 7`},
		"other scheme":           {with(area, area+`, "git": {"allowedSchemes": ["ext"]}`), `line 2: content.git.allowedSchemes[0]: must be one of ["https" "http" "ssh"], not "ext"`},
		"denied as a name":       {with(area, area+`, "egress": {"deny": ["kubernetes.default"]}`), `line 2: content.egress.deny[0]: must be a network such as "10.96.0.0/12" or "192.0.2.1/32", not "kubernetes.default"`},
		"denied without size":    {with(area, area+`, "egress": {"deny": ["192.0.2.1"]}`), `line 2: content.egress.deny[0]: must be a network such as "10.96.0.0/12" or "192.0.2.1/32", not "192.0.2.1"`},
		"denied with host bits":  {with(area, area+`, "egress": {"deny": ["10.0.0.1/8"]}`), `line 2: content.egress.deny[0]: must be a network such as "10.96.0.0/12" or "192.0.2.1/32", not "10.0.0.1/8"`},
		"no git":                 {with(area, area+`, "git": {"program": ""}`), `line 2: content.git.program: must be set`},
		"duration as a number":   {timeouts(`"store": 60`), `line 2: content.timeouts.store: a duration is a text such as "10m" or "7d", not 60`},
		"duration in weeks":      {timeouts(`"store": "1w"`), `line 2: content.timeouts.store: a duration is a text such as "10m" or "7d", not "1w"`},
		"duration without unit":  {timeouts(`"store": "60"`), `line 2: content.timeouts.store: a duration is a text such as "10m" or "7d", not "60"`},
		"duration of ages":       {timeouts(`"store": "99999d"`), `line 2: content.timeouts.store: a duration is a text such as "10m" or "7d", not "99999d"`},
		"duration of nothing":    {timeouts(`"store": "0s"`), "line 2: content.timeouts.store: must be longer than 0s, not 0s"},
		"interval too short":     {backup(`"interval": "10ms"`), `line 2: content.backup.interval: must be from 1s to 7d, or "0s" for no periodic backups, not 10ms`},
		"interval too long":      {backup(`"interval": "8d"`), `line 2: content.backup.interval: must be from 1s to 7d, or "0s" for no periodic backups, not 8d`},
		"negative interval":      {backup(`"interval": "-1h"`), `line 2: content.backup.interval: must be from 1s to 7d, or "0s" for no periodic backups, not -1h`},
		"negative total":         {timeouts(`"storeTotal": "-1s"`), "line 2: content.timeouts.storeTotal: must be longer than 0s, not -1s"},
		"negative initialize":    {timeouts(`"initialize": "-1s"`), "line 2: content.timeouts.initialize: must be longer than 0s, not -1s"},
		"negative backup":        {timeouts(`"backup": "-1s"`), "line 2: content.timeouts.backup: must be longer than 0s, not -1s"},
		"negative remove":        {timeouts(`"remove": "-1s"`), "line 2: content.timeouts.remove: must be longer than 0s, not -1s"},
		"negative pods":          {timeouts(`"pods": "-1s"`), "line 2: content.timeouts.pods: must be longer than 0s, not -1s"},
		"negative pause":         {timeouts(`"retryMax": "-1s"`), "line 2: content.timeouts.retryMax: must be longer than 0s, not -1s"},
		"no stray retention":     {with(area, area+`, "strayRetention": "0s"`), "line 2: content.strayRetention: must be longer than 0s, not 0s"},
		"no orphan grace":        {with(area, area+`, "orphanGrace": "0s"`), "line 2: content.orphanGrace: must be longer than 0s, not 0s"},
		"no tombstone grace":     {with(area, area+`, "tombstoneGrace": "0s"`), "line 2: content.tombstoneGrace: must be longer than 0s, not 0s"},
		"short wait":             {with(area, area+`, "collect": {"wait": "10m"}`), "line 2: content.collect.wait: must be at least 1h, not 10m"},
		"no working area":        {with(area, ""), `line 2: content.workingArea: must be an absolute path, not ""`},
		"relative working area":  {with(`"/var/lib/ws-daemon"`, `"data"`), `line 2: content.workingArea: must be an absolute path, not "data"`},
		"zero byte":              {with(`"/var/lib/ws-daemon"`, `"/x\u0000y"`), `line 2: content.workingArea: must be a path, and has a zero byte in it`},
		"key file":               {with(`"kind": "filesystem"`, `"kind": "filesystem", "keyFile": "key"`), `line 3: storage.keyFile: must be an absolute path, not "key"`},
		"other store":            {with(`"kind": "filesystem"`, `"kind": "tape"`), `line 3: storage.kind: must be one of ["filesystem" "s3" "gcs"], not "tape"`},
		"no store":               {with(`{"kind": "filesystem", "filesystem": {"path": "/mnt/store"}}`, "{}"), `line 3: storage.kind: must be one of ["filesystem" "s3" "gcs"], not ""`},
		"store without settings": {with(`, "filesystem": {"path": "/mnt/store"}`, ""), "line 3: storage.filesystem: must be set for storage.kind filesystem"},
		"relative store":         {with(`"/mnt/store"`, `"store"`), `line 3: storage.filesystem.path: must be an absolute path, not "store"`},
		"store in the area":      {with(`"/mnt/store"`, `"/var/lib/ws-daemon/store"`), `line 3: storage.filesystem.path: must not be within content.workingArea, nor the other way round: backups on the disk that they are to save are lost with it`},
		"store among volumes":    {with(`"driver"`, `"path": "/mnt", "driver"`), `line 3: storage.filesystem.path: must not be within the directory of volume class default, /mnt, nor the other way round: backups on the disk that they are to save are lost with it`},
		"volumes in the store":   {with(`"driver"`, `"path": "/mnt/store/v", "driver"`), `line 3: storage.filesystem.path: must not be within the directory of volume class default, /mnt/store/v, nor the other way round: backups on the disk that they are to save are lost with it`},
		"key in the store":       {with(`"kind": "filesystem"`, `"kind": "filesystem", "keyFile": "/mnt/store/key"`), `line 3: storage.keyFile: must not be within storage.filesystem.path: who reads the store would have the key to it`},
		"area for volumes":       {with(`"driver"`, `"path": "/var/lib/ws-daemon/", "driver"`), `line 4: volumes.classes.default.path: must not be content.workingArea, nor contain it: the daemon's own files are no volumes`},
		"area among volumes":     {with(`"driver"`, `"path": "/var", "driver"`), `line 4: volumes.classes.default.path: must not be content.workingArea, nor contain it: the daemon's own files are no volumes`},
		"volumes of the kubelet": {strings.Replace(with(`"storage"`, `"csi": {"socket": "/csi.sock"}, "storage"`), `"driver"`, `"path": "/var/lib/kubelet/ws", "driver"`, 1), `line 4: volumes.classes.default.path: must not be within csi.kubeletDir, nor the other way round: the kubelet removes what it does not know`},
		"relative socket":        {with(`"storage"`, `"csi": {"socket": "csi.sock"}, "storage"`), `line 3: csi.socket: must be an absolute path, not "csi.sock"`},
		"long socket":            {with(`"storage"`, `"csi": {"socket": "/`+strings.Repeat("s", 107)+`"}, "storage"`), `line 3: csi.socket: must be a path of at most 107 bytes, not 108: Linux has no longer ones for sockets`},
		"long registration":      {with(`"storage"`, `"csi": {"socket": "/csi.sock", "registrationDir": "/`+strings.Repeat("r", 75)+`"}, "storage"`), `line 3: csi.registrationDir: must be a path of at most 75 bytes, not 76: Linux has no longer ones for sockets`},
		"no registration":        {with(`"storage"`, `"csi": {"socket": "/csi.sock", "registrationDir": ""}, "storage"`), `line 3: csi.registrationDir: must be an absolute path, not ""`},
		"area of the kubelet":    {with(`"storage"`, `"csi": {"socket": "/csi.sock", "kubeletDir": "/var/lib"}, "storage"`), `line 3: csi.kubeletDir: must not be within content.workingArea, nor the other way round: the kubelet removes what it does not know`},
		"no class":               {with(classes, "{}"), `line 4: volumes.classes: at least one class is needed, usually "default"`},
		"a path for a class":     {with(`"default"`, `"../../etc"`), `line 4: volumes.classes.../../etc: a name has 1 to 63 small letters, digits and inner hyphens, not "../../etc"`},
		"other driver":           {with(`"directory"`, `"zfs"`), `line 4: volumes.classes.default.driver: must be one of ["directory" "quota" "lvm"], not "zfs"`},
		"projects of nobody":     {with(`"driver"`, `"projects": {"first": 1, "last": 2}, "driver"`), `line 4: volumes.classes.default.projects: only the driver "quota" has them`},
		"projects from 0":        {with(classes, quota(0, 5)), "line 4: volumes.classes.default.projects: must begin above 0 and not end before, not from 0 to 5"},
		"projects end first":     {with(classes, quota(6, 5)), "line 4: volumes.classes.default.projects: must begin above 0 and not end before, not from 6 to 5"},
		"relative class":         {with(`"driver"`, `"path": "x", "driver"`), `line 4: volumes.classes.default.path: must be an absolute path, not "x"`},
		"classes in one place":   {with(classes, `{"a": {"driver": "directory", "path": "/v"}, "b": {"driver": "directory", "path": "/v/b"}}`), `line 4: volumes.classes.b: its directory /v/b must not be, contain, or lie in that of class a, /v`},
		"classes in one area":    {with(classes, `{"a": {"driver": "directory"}, "b": {"driver": "directory", "path": "/var/lib/ws-daemon/volumes"}}`), `line 4: volumes.classes.b: its directory /var/lib/ws-daemon/volumes must not be, contain, or lie in that of class a, /var/lib/ws-daemon/volumes/a`},
		"classes in one pool":    {with(classes, `{"a": {"driver": "lvm", "volumeGroup": "ws", "thinPool": "p", "filesystem": "xfs"}, "b": {"driver": "lvm", "volumeGroup": "ws", "thinPool": "p", "filesystem": "ext4"}}`), `line 4: volumes.classes.b: its thin pool ws/p must not be that of class a`},
		"lvm without a pool":     {lvm(`"volumeGroup": "ws", "filesystem": "xfs"`), `line 4: volumes.classes.default.thinPool: must be the name that lvs shows, not ""`},
		"lvm option for a name":  {lvm(`"volumeGroup": "-f", "thinPool": "p", "filesystem": "xfs"`), `line 4: volumes.classes.default.volumeGroup: must be the name that lvs shows, not "-f"`},
		"other file system":      {lvm(`"volumeGroup": "ws", "thinPool": "p", "filesystem": "zfs"`), `line 4: volumes.classes.default.filesystem: must be one of ["xfs" "ext4"], not "zfs"`},
		"size as a number":       {lvm(`"minSize": 5`), `line 4: volumes.classes.default.minSize: a size is a text such as "20Gi" or "512Mi", not 5`},
		"size of nothing":        {lvm(`"minSize": "much"`), `line 4: volumes.classes.default.minSize: a size is a text such as "20Gi" or "512Mi", not "much"`},
		"size in minutes":        {lvm(`"minSize": "10m"`), `line 4: volumes.classes.default.minSize: a size is a text such as "20Gi" or "512Mi", not "10m"`},
		"size in GB":             {lvm(`"minSize": "10GB"`), `line 4: volumes.classes.default.minSize: a size is a text such as "20Gi" or "512Mi", not "10GB"`},
		"negative size":          {lvm(`"minSize": "-1Gi"`), `line 4: volumes.classes.default.minSize: a size is a text such as "20Gi" or "512Mi", not "-1Gi"`},
		"size of half a byte":    {lvm(`"minSize": "1.5"`), `line 4: volumes.classes.default.minSize: a size is a text such as "20Gi" or "512Mi", of whole bytes, not "1.5"`},
		"size of the universe":   {lvm(`"minSize": "9999Ei"`), `line 4: volumes.classes.default.minSize: a size is a text such as "20Gi" or "512Mi", of whole bytes, not "9999Ei"`},
		"negative templates":     {lvm(`"volumeGroup": "ws", "thinPool": "p", "filesystem": "xfs", "templates": -1`), `line 4: volumes.classes.default.templates: must not be negative`},
		"pool without lvm":       {with(classes, `{"default": {"driver": "directory", "thinPool": "p"}}`), "line 4: volumes.classes.default: volumeGroup, thinPool, filesystem, templates and minSize are for the driver lvm"},
		"too many classes":       {with(classes, manyClasses(33)), "line 4: volumes.classes: must be at most 32, not 33"},
		"name with capitals":     {with(`"default"`, `"Fast"`), `line 4: volumes.classes.Fast: a name has 1 to 63 small letters, digits and inner hyphens, not "Fast"`},
		"name with a dot":        {with(`"default"`, `"a.b"`), `line 4: volumes.classes.a.b: a name has 1 to 63 small letters, digits and inner hyphens, not "a.b"`},
		"name of nothing":        {with(`"default"`, `""`), `line 4: volumes.classes.: a name has 1 to 63 small letters, digits and inner hyphens, not ""`},
		"name with an end":       {with(`"default"`, `"a-"`), `line 4: volumes.classes.a-: a name has 1 to 63 small letters, digits and inner hyphens, not "a-"`},
		"large reserve":          {node(`"reservePercent": 51`), "line 3: node.reservePercent: must be from 0 to 50, not 51"},
		"pressure never clears":  {node(`"pressure": {"bytes": {"set": 85}}`), "line 3: node.pressure.bytes: clear must be at least 1, less than set, and set at most 100, not 85 and 85"},
		"pressure at nothing":    {node(`"pressure": {"inodes": {"clear": 0}}`), "line 3: node.pressure.inodes: clear must be at least 1, less than set, and set at most 100, not 0 and 90"},
		"pressure never comes":   {node(`"pressure": {"thinData": {"set": 101}}`), "line 3: node.pressure.thinData: clear must be at least 1, less than set, and set at most 100, not 80 and 101"},
		"metadata never clear":   {node(`"pressure": {"thinMetadata": {"clear": 90}}`), "line 3: node.pressure.thinMetadata: clear must be at least 1, less than set, and set at most 100, not 90 and 80"},
		"no room for backups":    {with(`"storage"`, `"limits": {"backup": 0}, "storage"`), "line 3: limits.backup: must be at least 1, not 0"},
		"no requests":            {limits(`"requests": 3`), "line 3: limits.store.requests: must be at least 4, not 3"},
		"memory as a number":     {limits(`"memory": 1000000`), `line 3: limits.store.memory: a size is a text such as "20Gi" or "512Mi", not 1000000`},
		"little memory":          {limits(`"memory": "1000Ki"`), "line 3: limits.store.memory: must be at least 128Mi, not 1000Ki"},
		"slow upload":            {limits(`"uploadBytesPerSecond": "1000"`), `line 3: limits.store.uploadBytesPerSecond: must be at least 64Ki, or "0" for no limit, not 1k`},
		"slow download":          {limits(`"downloadBytesPerSecond": "1Ki"`), `line 3: limits.store.downloadBytesPerSecond: must be at least 64Ki, or "0" for no limit, not 1Ki`},
		"log level":              {log(`"level": "loud"`), `line 3: log.level: must be one of ["debug" "info" "warn" "error"], not "loud"`},
		"log format":             {log(`"format": "xml"`), `line 3: log.format: must be one of ["json" "console"], not "xml"`},
		"address without a port": {metrics(`"address": "127.0.0.1"`), `line 3: metrics.address: must be host:port, "127.0.0.1:9090" or ":8081" for example, not "127.0.0.1"`},
		"no port":                {metrics(`"address": "127.0.0.1:0"`), `line 3: metrics.address: must have a port from 1 to 65535, not "0"`},
		"too high a port":        {metrics(`"address": ":65536"`), `line 3: metrics.address: must have a port from 1 to 65535, not "65536"`},
		"a name for an address":  {metrics(`"address": "example.com:80"`), `line 3: metrics.address: must have the address of a network interface, localhost or nothing before the port, not "example.com"`},
		"an address for two":     {metrics(`"address": ":8081"`), `line 3: metrics.address: must not be that of health, :8081`},
		"the same by its name":   {with(`"storage"`, `"health": {"address": "localhost:9090"}, "storage"`), `line 3: metrics.address: must not be that of health, localhost:9090`},
		"a port for everything":  {metrics(`"address": "127.0.0.1:08081"`), `line 3: metrics.address: must not be that of health, :8081`},
		"certificate, no key":    {metrics(`"address": ":9090", "certFile": "/c"`), `line 3: metrics.certFile: needs metrics.keyFile, and the other way round`},
		"relative certificate":   {metrics(`"address": ":9090", "certFile": "c", "keyFile": "/k"`), `line 3: metrics.certFile: must be an absolute path, not "c"`},
		"certificate for nobody": {metrics(`"certFile": "/c", "keyFile": "/k"`), `line 3: metrics.certFile: is for an address that others reach, not for "127.0.0.1:9090", where there is no TLS`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse([]byte(tt.text))
			NewWithT(t).Expect(err).To(MatchError(tt.want))
		})
	}
}

func manyClasses(n int) string {
	classes := make([]string, n)
	for i := range classes {
		classes[i] = fmt.Sprintf(`"class-%d": {"driver": "directory", "allowUnlimited": true}`, i)
	}
	return "{" + strings.Join(classes, ", ") + "}"
}

func TestParseTellsAllMistakesAtOnce(t *testing.T) {
	_, err := config.Parse([]byte("{\n\"storage\": {\"kind\": \"tape\"},\n\"log\": {\"level\": \"loud\"}}"))
	NewWithT(t).Expect(err).To(MatchError(`line 1: content.workingArea: must be an absolute path, not ""
line 1: volumes.classes: at least one class is needed, usually "default"
line 2: storage.kind: must be one of ["filesystem" "s3" "gcs"], not "tape"
line 3: log.level: must be one of ["debug" "info" "warn" "error"], not "loud"`))
}

func TestManyMistakesAreCounted(t *testing.T) {
	var text strings.Builder
	for i := range 25 {
		fmt.Fprintf(&text, ", \"key%d\": 1", i)
	}
	_, err := config.Parse([]byte("{" + text.String()[1:] + "}"))
	lines := strings.Split(err.Error(), "\n")
	g := NewWithT(t)
	g.Expect(lines).To(HaveLen(21))
	g.Expect(lines[20]).To(Equal("and 5 more"))
}

func TestDurationsAreWrittenAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour,
		"36h": 36 * time.Hour, "36500d": 36500 * 24 * time.Hour, "1m5s": 65 * time.Second, "0s": 0,
	} {
		t.Run(text, func(t *testing.T) {
			g := NewWithT(t)
			var d config.Duration
			g.Expect(json.Unmarshal([]byte(`"`+text+`"`), &d)).To(Succeed())
			g.Expect(d.Duration).To(Equal(want))
			data, err := json.Marshal(d)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(string(data)).To(Equal(`"` + text + `"`))
		})
	}
}

func TestDurationsOfDays(t *testing.T) {
	g := NewWithT(t)
	var d config.Duration
	g.Expect(json.Unmarshal([]byte(`"1d12h30m"`), &d)).To(Succeed())
	g.Expect(d.Duration).To(Equal(36*time.Hour + 30*time.Minute))
	for _, text := range []string{`"1d-12h"`, `"d"`, `"1d2d"`, `"1.5d"`, `"36501d"`, `"36500d1s"`, `"999999d"`, `"1dd"`} {
		g.Expect(json.Unmarshal([]byte(text), &d)).To(HaveOccurred(), text)
	}
}

func TestSizesAreWrittenAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]config.Size{
		"0": 0, "1k": 1000, "1001": 1001, "512Mi": 512 << 20, "20Gi": 20 << 30, "7Ei": 7 << 60,
	} {
		t.Run(text, func(t *testing.T) {
			g := NewWithT(t)
			var s config.Size
			g.Expect(json.Unmarshal([]byte(`"`+text+`"`), &s)).To(Succeed())
			g.Expect(s).To(Equal(want))
			data, err := json.Marshal(s)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(string(data)).To(Equal(`"` + text + `"`))
		})
	}
	g := NewWithT(t)
	var s config.Size
	g.Expect(json.Unmarshal([]byte(`"1.5Gi"`), &s)).To(Succeed())
	g.Expect(s).To(Equal(config.Size(3 << 29)))
	g.Expect(json.Unmarshal([]byte(`"5G"`), &s)).To(Succeed())
	g.Expect(s).To(Equal(config.Size(5e9)))
}

func TestLoadNamesFileLineAndKey(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	_, err := config.Load(file)
	g.Expect(err).To(MatchError("configuration " + file + " does not exist: `ws-daemon config example` prints one"))

	g.Expect(os.WriteFile(file, []byte("{\n\n\"a\": 1}"), 0o600)).To(Succeed())
	_, err = config.Load(file)
	g.Expect(err).To(MatchError(HavePrefix(file + ":3: a: there is no such key; ")))

	g.Expect(os.WriteFile(file, []byte(complete), 0o600)).To(Succeed())
	_, err = config.Load(file)
	g.Expect(err).NotTo(HaveOccurred())
}

func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	_, err := config.Load(dir)
	g.Expect(err).To(MatchError("configuration " + dir + " is not a file"))

	pipe := filepath.Join(dir, "pipe") // nobody writes into it: it would be waited for
	g.Expect(unix.Mkfifo(pipe, 0o600)).To(Succeed())
	_, err = config.Load(pipe)
	g.Expect(err).To(MatchError("configuration " + pipe + " is not a file"))

	huge := filepath.Join(dir, "huge") // a terabyte, all of it holes
	g.Expect(os.WriteFile(huge, nil, 0o600)).To(Succeed())
	g.Expect(os.Truncate(huge, 1<<40)).To(Succeed())
	_, err = config.Load(huge)
	g.Expect(err).To(MatchError("configuration " + huge + " has more than 1048576 bytes: is it the right file?"))

	_, err = config.Load("/dev/zero")
	g.Expect(err).To(MatchError("configuration /dev/zero is not a file"))
	_, err = config.Load("")
	g.Expect(err).To(HaveOccurred())
}

// A file may go by another name, as one of a ConfigMap does.
func TestLoadFollowsLinks(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(dir, "real"), []byte(complete), 0o600)).To(Succeed())
	g.Expect(os.Symlink("real", filepath.Join(dir, "config.json"))).To(Succeed())
	_, err := config.Load(filepath.Join(dir, "config.json"))
	g.Expect(err).NotTo(HaveOccurred())
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:80": true, "127.8.8.8:80": true, "[::1]:80": true, "localhost:80": true,
		":80": false, "0.0.0.0:80": false, "[::]:80": false, "10.0.0.1:80": false, "example.com:80": false, "127.0.0.1": false, "": false,
	} {
		NewWithT(t).Expect(config.IsLoopback(address)).To(Equal(want), address)
	}
}

// The samples of volumes are configurations that a daemon takes.
func TestSamplesOfVolumes(t *testing.T) {
	g := NewWithT(t)
	for _, driver := range []string{config.DriverQuota, config.DriverLVM} {
		c, err := config.Load("../../config/samples/volumes/" + driver + "/config.json")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(c.Volumes.Classes).To(HaveKeyWithValue("default", HaveField("Driver", driver)))
	}
}
