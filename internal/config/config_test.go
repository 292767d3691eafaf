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
	g.Expect(got).To(Equal(config.Class{Driver: "lvm", LVM: config.LVM{
		VolumeGroup: "ws", ThinPool: "pool", Filesystem: "ext4", Overcommit: true, Templates: 4, MinSize: 1 << 30,
	}}))
	g.Expect(got.CanLimit()).To(BeTrue())
}

// What is documented as the default must be the default.
func TestDefaults(t *testing.T) {
	g := NewWithT(t)
	d := config.Default()
	g.Expect(d.Content.StrayRetention.Duration).To(Equal(30 * 24 * time.Hour))
	g.Expect(d.Content.OrphanGrace.Duration).To(Equal(24 * time.Hour))
	g.Expect(d.Content.TombstoneGrace.Duration).To(Equal(7 * 24 * time.Hour))
	g.Expect(d.Content.AdoptCluster).To(BeFalse())
	g.Expect(d.Content.Git).To(Equal(config.Git{Program: "git", AllowedSchemes: []string{"https"}}))
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
	node := func(keys string) string { return with(`"storage"`, `"node": {`+keys+`}, "storage"`) }
	limits := func(text string) string { return with(`"storage"`, `"limits": {"store": {`+text+`}}, "storage"`) }
	tests := map[string]struct{ text, want string }{
		"nothing":                {"", "line 1: EOF"},
		"no object":              {"[]", "line 1: json: cannot unmarshal array into Go value of type config.Config"},
		"cut off":                {`{"content": {`, "line 1: unexpected EOF"},
		"two":                    {complete + "\n{}", "line 6: more text after the configuration"},
		"comment":                {"{\n# no\n}", "line 2: invalid character '#' looking for beginning of object key string"},
		"unknown key":            {with(`"workingArea"`, `"workDir"`), `line 2: json: unknown field "workDir"`},
		"unknown section":        {with(`"storage"`, `"store"`), `line 3: json: unknown field "store"`},
		"unknown class key":      {with(`"allowUnlimited"`, `"unlimited"`), `line 4: json: unknown field "unlimited"`},
		"number for a text":      {with(`"/mnt/store"`, "7"), "line 3: json: cannot unmarshal number into Go struct field Filesystem.storage.filesystem.path of type string"},
		"text for a number":      {with(`"storage"`, `"limits": {"backup": "2"}, "storage"`), "line 3: json: cannot unmarshal string into Go struct field Limits.limits.backup of type int"},
		"text for a bool":        {with("true", `"yes"`), "line 4: json: cannot unmarshal string into Go struct field Class.volumes.classes.allowUnlimited of type bool"},
		"duration as a number":   {timeouts(`"store": 60`), `line 2: a duration is a text such as "10m", not 60`},
		"duration in days":       {timeouts(`"store": "1d"`), `line 2: a duration is a text such as "10m", not "1d"`},
		"duration without unit":  {timeouts(`"store": "60"`), `line 2: a duration is a text such as "10m", not "60"`},
		"duration of nothing":    {timeouts(`"store": "0s"`), "content.timeouts.store: must be longer than 0s, not 0s"},
		"negative initialize":    {timeouts(`"initialize": "-1s"`), "content.timeouts.initialize: must be longer than 0s, not -1s"},
		"negative backup":        {timeouts(`"backup": "-1s"`), "content.timeouts.backup: must be longer than 0s, not -1s"},
		"negative remove":        {timeouts(`"remove": "-1s"`), "content.timeouts.remove: must be longer than 0s, not -1s"},
		"negative pods":          {timeouts(`"pods": "-1s"`), "content.timeouts.pods: must be longer than 0s, not -1s"},
		"negative pause":         {timeouts(`"retryMax": "-1s"`), "content.timeouts.retryMax: must be longer than 0s, not -1s"},
		"no stray retention":     {with(area, area+`, "strayRetention": "0s"`), "content.strayRetention: must be longer than 0s, not 0s"},
		"no orphan grace":        {with(area, area+`, "orphanGrace": "0s"`), "content.orphanGrace: must be longer than 0s, not 0s"},
		"no tombstone grace":     {with(area, area+`, "tombstoneGrace": "0s"`), "content.tombstoneGrace: must be longer than 0s, not 0s"},
		"short wait":             {with(area, area+`, "collect": {"wait": "10m"}`), "content.collect.wait: must be at least 1h, not 10m0s"},
		"no working area":        {with(area, ""), `content.workingArea: must be an absolute path, not ""`},
		"relative working area":  {with(`"/var/lib/ws-daemon"`, `"data"`), `content.workingArea: must be an absolute path, not "data"`},
		"key file":               {with(`"kind": "filesystem"`, `"kind": "filesystem", "keyFile": "key"`), `storage.keyFile: must be an absolute path, not "key"`},
		"other store":            {with(`"kind": "filesystem"`, `"kind": "tape"`), `storage.kind: must be one of ["filesystem" "s3" "gcs"], not "tape"`},
		"no store":               {with(`{"kind": "filesystem", "filesystem": {"path": "/mnt/store"}}`, "{}"), `storage.kind: must be one of ["filesystem" "s3" "gcs"], not ""`},
		"store without settings": {with(`, "filesystem": {"path": "/mnt/store"}`, ""), "storage.filesystem: must be set for storage.kind filesystem"},
		"relative store":         {with(`"/mnt/store"`, `"store"`), `storage.filesystem.path: must be an absolute path, not "store"`},
		"no class":               {with(classes, "{}"), `volumes.classes: at least one class is needed, usually "default"`},
		"name of a class":        {with(`"default":`, `"Fast_1":`), `volumes.classes: the name of a class has 1 to 63 small letters, digits and inner hyphens, not "Fast_1"`},
		"path for a class":       {with(`"default":`, `"../etc":`), `volumes.classes: the name of a class has 1 to 63 small letters, digits and inner hyphens, not "../etc"`},
		"many classes":           {with(classes, manyClasses(33)), "volumes.classes: at most 32 classes are possible, not 33"},
		"other driver":           {with(`"directory"`, `"zfs"`), `volumes.classes.default.driver: must be one of ["directory" "quota" "lvm"], not "zfs"`},
		"projects of nobody":     {with(`"driver"`, `"projects": {"first": 1, "last": 2}, "driver"`), `volumes.classes.default.projects: only the driver "quota" has them`},
		"projects from 0":        {with(classes, quota(0, 5)), "volumes.classes.default.projects: must begin above 0 and not end before, not from 0 to 5"},
		"projects end first":     {with(classes, quota(6, 5)), "volumes.classes.default.projects: must begin above 0 and not end before, not from 6 to 5"},
		"relative class":         {with(`"driver"`, `"path": "x", "driver"`), `volumes.classes.default.path: must be an absolute path, not "x"`},
		"lvm without a pool":     {with(classes, `{"default": {"driver": "lvm", "volumeGroup": "ws", "filesystem": "xfs"}}`), `volumes.classes.default.thinPool: must be the name that lvs shows, not ""`},
		"lvm option for a name":  {with(classes, `{"default": {"driver": "lvm", "volumeGroup": "-f", "thinPool": "p", "filesystem": "xfs"}}`), `volumes.classes.default.volumeGroup: must be the name that lvs shows, not "-f"`},
		"other file system":      {with(classes, `{"default": {"driver": "lvm", "volumeGroup": "ws", "thinPool": "p", "filesystem": "zfs"}}`), `volumes.classes.default.filesystem: must be one of ["xfs" "ext4"], not "zfs"`},
		"size as a number":       {with(classes, `{"default": {"driver": "lvm", "minSize": 5}}`), `line 1: a size is a text such as "20Gi", not 5`},
		"size of nothing":        {with(classes, `{"default": {"driver": "lvm", "minSize": "much"}}`), `line 1: a size is a text such as "20Gi", not "much"`},
		"negative templates":     {with(classes, `{"default": {"driver": "lvm", "volumeGroup": "ws", "thinPool": "p", "filesystem": "xfs", "templates": -1}}`), `volumes.classes.default.templates: must not be negative`},
		"pool without lvm":       {with(classes, `{"default": {"driver": "directory", "thinPool": "p"}}`), "volumes.classes.default: volumeGroup, thinPool, filesystem, overcommit, templates and minSize are for the driver lvm"},
		"no room for backups":    {with(`"storage"`, `"limits": {"backup": 0}, "storage"`), "limits.backup: must be at least 1, not 0"},
		"no requests":            {limits(`"requests": 3`), "limits.store.requests: must be at least 4, not 3"},
		"little memory":          {limits(`"memory": 1000000`), "limits.store.memory: must be at least 134217728 bytes, not 1000000"},
		"slow upload":            {limits(`"uploadBytesPerSecond": 1000`), "limits.store.uploadBytesPerSecond: must be at least 65536, or 0 for no limit, not 1000"},
		"negative download":      {limits(`"downloadBytesPerSecond": -1`), "limits.store.downloadBytesPerSecond: must be at least 65536, or 0 for no limit, not -1"},
		"large reserve":          {node(`"reservePercent": 51`), "node.reservePercent: must be from 0 to 50, not 51"},
		"pressure never clears":  {node(`"pressure": {"bytes": {"set": 85}}`), "node.pressure.bytes: clear must be at least 1, less than set, and set at most 100, not 85 and 85"},
		"pressure at nothing":    {node(`"pressure": {"inodes": {"clear": 0}}`), "node.pressure.inodes: clear must be at least 1, less than set, and set at most 100, not 0 and 90"},
		"pressure never comes":   {node(`"pressure": {"thinData": {"set": 101}}`), "node.pressure.thinData: clear must be at least 1, less than set, and set at most 100, not 80 and 101"},
		"metadata never clear":   {node(`"pressure": {"thinMetadata": {"clear": 90}}`), "node.pressure.thinMetadata: clear must be at least 1, less than set, and set at most 100, not 90 and 80"},
		"log level":              {with(`"storage"`, `"log": {"level": "loud"}, "storage"`), `log.level: must be one of ["debug" "info" "warn" "error"], not "loud"`},
		"log format":             {with(`"storage"`, `"log": {"format": "xml"}, "storage"`), `log.format: must be one of ["json" "console"], not "xml"`},
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
	_, err := config.Parse([]byte(`{"storage": {"kind": "tape"}, "log": {"level": "loud"}}`))
	NewWithT(t).Expect(err).To(MatchError(And(
		ContainSubstring("content.workingArea: "), ContainSubstring("storage.kind: "),
		ContainSubstring("volumes.classes: "), ContainSubstring("log.level: "),
	)))
}

func TestDurationsAreWrittenAsTheyAreRead(t *testing.T) {
	g := NewWithT(t)
	for text, want := range map[string]time.Duration{`"10m"`: 10 * time.Minute, `"1h30m"`: 90 * time.Minute, `"250ms"`: 250 * time.Millisecond} {
		var d, again config.Duration
		g.Expect(json.Unmarshal([]byte(text), &d)).To(Succeed())
		g.Expect(d.Duration).To(Equal(want))
		data, err := json.Marshal(d)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(json.Unmarshal(data, &again)).To(Succeed())
		g.Expect(again).To(Equal(d))
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "config.json")
	_, err := config.Load(file)
	g.Expect(err).To(MatchError("read configuration: open " + file + ": no such file or directory"))

	g.Expect(os.WriteFile(file, []byte("{\n\n\"a\": 1}"), 0o600)).To(Succeed())
	_, err = config.Load(file)
	g.Expect(err).To(MatchError("configuration " + file + `: line 3: json: unknown field "a"`))

	g.Expect(os.WriteFile(file, []byte(complete), 0o600)).To(Succeed())
	_, err = config.Load(file)
	g.Expect(err).NotTo(HaveOccurred())
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
