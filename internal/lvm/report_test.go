package lvm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// recorded is what lvs 2.03.16 prints.
const recorded = `  {
      "report": [
          {
              "lv": [
                  {"lv_name":"other", "pool_lv":"", "origin":"", "lv_size":"4194304", "lv_tags":"", "lv_active":"active", "lv_permissions":"writeable", "data_percent":"", "metadata_percent":"", "zero":"", "lv_layout":"linear"},
                  {"lv_name":"pool", "pool_lv":"", "origin":"", "lv_size":"1073741824", "lv_tags":"wsdaemon.area=a-1", "lv_active":"active", "lv_permissions":"writeable", "data_percent":"12.50", "metadata_percent":"10.68", "zero":"zero", "lv_layout":"thin,pool"},
                  {"lv_name":"tmp", "pool_lv":"pool", "origin":"", "lv_size":"104857600", "lv_tags":"", "lv_active":"active", "lv_permissions":"writeable", "data_percent":"0.40", "metadata_percent":"", "zero":"zero", "lv_layout":"thin,sparse"},
                  {"lv_name":"ws.a", "pool_lv":"pool", "origin":"", "lv_size":"209715200", "lv_tags":"wsdaemon", "lv_active":"", "lv_permissions":"writeable", "data_percent":"", "metadata_percent":"", "zero":"", "lv_layout":"thin,sparse"},
                  {"lv_name":"ws.a.view-x", "pool_lv":"pool", "origin":"ws.a", "lv_size":"209715200", "lv_tags":"wsdaemon,wsdaemon.view", "lv_active":"active", "lv_permissions":"read-only", "data_percent":"3.00", "metadata_percent":"", "zero":"zero", "lv_layout":"thin,sparse"},
                  {"lv_name":"ws.b", "pool_lv":"", "origin":"", "lv_size":"4194304", "lv_tags":"wsdaemon", "lv_active":"active", "lv_permissions":"writeable", "data_percent":"", "metadata_percent":"", "zero":"", "lv_layout":"linear"},
                  {"lv_name":"ws.c", "pool_lv":"pool", "origin":"", "lv_size":"314572800", "lv_tags":"wsdaemon,wsdaemon.going,wsdaemon.new", "lv_active":"active", "lv_permissions":"writeable", "data_percent":"0.00", "metadata_percent":"", "zero":"zero", "lv_layout":"thin,sparse"},
                  {"lv_name":"wst.abc", "pool_lv":"pool", "origin":"ws.a", "lv_size":"209715200", "lv_tags":"wsdaemon,wsdaemon.bytes=104857600,wsdaemon.template", "lv_active":"", "lv_permissions":"read-only", "data_percent":"", "metadata_percent":"", "zero":"", "lv_layout":"thin,sparse"}
              ]
          }
      ]
  }
`

// reporting returns a driver whose lvm prints a report, and keeps what it was called with in a file.
func reporting(t *testing.T, text string) (d *Driver, calls string) {
	t.Helper()
	g := NewWithT(t)
	d, err := New(Class{Root: t.TempDir(), Group: "ws", Pool: "pool", Filesystem: "xfs"})
	g.Expect(err).NotTo(HaveOccurred())
	dir := t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(dir, "report"), []byte(text), 0o600)).To(Succeed())
	calls = filepath.Join(dir, "calls")
	d.tools = program(t, `echo "$*" >> "`+calls+`"; [ "$1" != lvs ] || cat "`+dir+`/report"`)
	return d, calls
}

func TestReport(t *testing.T) {
	g := NewWithT(t)
	d, calls := reporting(t, recorded)
	r, err := d.report(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r).To(Equal(report{
		pool: logical{name: "pool", size: 1 << 30, tags: []string{"wsdaemon.area=a-1"}, active: true, data: 12.5, metadata: 10.68, zeroes: true, isPool: true},
		volumes: map[string]logical{
			"a": {name: "ws.a", pool: "pool", size: 200 << 20, tags: []string{"wsdaemon"}},
			"b": {name: "ws.b"}, // not in the pool: a name that is taken
			"c": {name: "ws.c", pool: "pool", size: 300 << 20, tags: []string{"wsdaemon", "wsdaemon.going", "wsdaemon.new"}, active: true, zeroes: true},
		},
		views: []logical{{name: "ws.a.view-x", pool: "pool", origin: "ws.a", size: 200 << 20, tags: []string{"wsdaemon", "wsdaemon.view"},
			active: true, readOnly: true, data: 3, zeroes: true}},
		templates: map[string]logical{"abc": {name: "wst.abc", pool: "pool", origin: "ws.a", size: 200 << 20,
			tags: []string{"wsdaemon", "wsdaemon.bytes=104857600", "wsdaemon.template"}, readOnly: true}},
		taken: 700 << 20,
	}))
	g.Expect(*r.spare()).To(Equal(int64(424<<20)), "the template would go")
	g.Expect(r.ids("")).To(Equal([]string{"a"}))
	g.Expect(r.ids(tagGoing)).To(Equal([]string{"c"}), "whatever it was before")
	g.Expect(os.ReadFile(calls)).To(BeEquivalentTo(
		"lvs --reportformat json --units b --nosuffix --options " + reportFields + " -- ws\n"))
}

func TestReportThatIsNotUnderstood(t *testing.T) {
	for text, want := range map[string]string{
		"":   "read report: unexpected end of JSON input",
		"{}": "volume group ws has no thin pool pool",
		strings.Replace(recorded, "209715200", "200.00m", 1): `size of ws.a: strconv.ParseInt: parsing "200.00m"`,
		strings.Replace(recorded, `"12.50"`, `"many"`, 1):    `percentages of pool: strconv.ParseFloat: parsing "many"`,
		strings.Replace(recorded, "thin,pool", "linear", 1):  "volume group ws has no thin pool pool",
	} {
		d, _ := reporting(t, text)
		_, err := d.report(t.Context())
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(want)))
	}
}

func TestAdmit(t *testing.T) {
	for name, test := range map[string]struct {
		pool       logical
		more       int64
		overcommit bool
		want       string
	}{
		"fits":              {logical{size: 1000}, 400, false, ""},
		"does not":          {logical{size: 1000}, 401, false, "thin pool ws/pool has 1000 bytes, of which 600 are promised, and 401 more are asked for"},
		"need not":          {logical{size: 1000}, 4000, true, ""},
		"data are full":     {logical{size: 1000, data: 95}, 1, true, "thin pool ws/pool is 95.0 % full"},
		"metadata are full": {logical{size: 1000, metadata: 90}, 1, true, "the metadata of thin pool ws/pool are 90.0 % full"},
		"data nearly full":  {logical{size: 1000, data: 94.9, metadata: 89.9}, 1, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := &Driver{class: Class{Group: "ws", Pool: "pool", Overcommit: test.overcommit}}
			err := d.admit(report{pool: test.pool, taken: 600}, test.more)
			if test.want == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(volume.ErrCapacity))
			g.Expect(err).To(MatchError(ContainSubstring(test.want)))
		})
	}
}

// A pool that says nothing of how full it is, or takes no changes, is not one with room.
func TestS10_PoolThatSaysNothing(t *testing.T) {
	for health, test := range map[string]struct{ data, want string }{
		"":                   {"", "ws/pool does not tell how full it is: activate it (lvchange --activate y ws/pool)"},
		"failed":             {"", `ws/pool is "failed"`},
		"metadata_read_only": {"12.50", `ws/pool is "metadata_read_only"`},
	} {
		t.Run(health, func(t *testing.T) {
			g := NewWithT(t)
			text := strings.Replace(recorded, `"12.50"`, `"`+test.data+`"`, 1)
			text = strings.Replace(text, `"lv_layout":"thin,pool"`, `"lv_layout":"thin,pool","lv_health_status":"`+health+`"`, 1)
			d, _ := reporting(t, text)
			is := And(MatchError(ErrUnfit), MatchError(ContainSubstring(test.want)))
			_, err := d.Capacity(t.Context())
			g.Expect(err).To(is)
			r, err := d.report(t.Context())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(d.admit(r, 1)).To(is)
			g.Expect(d.mayView(r)).To(is)
		})
	}
}

func TestPoolIsActivated(t *testing.T) {
	g := NewWithT(t)
	d, calls := reporting(t, `{"report": [{"lv": [
		{"lv_name":"pool", "pool_lv":"", "lv_size":"1073741824", "lv_active":"", "data_percent":"", "metadata_percent":"", "zero":"zero", "lv_layout":"thin,pool"}
	]}]}`)
	g.Expect(d.Sweep(t.Context())).To(Succeed())
	g.Expect(os.ReadFile(calls)).To(HaveSuffix("lvchange --quiet --ignoreactivationskip --activate y -- ws/pool\n"))
}

// What other people have made is no volume, whatever it is called, and stands in no volume's way.
func TestViewWithoutATagIsNotOurs(t *testing.T) {
	g := NewWithT(t)
	d, _ := reporting(t, strings.Replace(recorded, "wsdaemon,wsdaemon.view", "", 1))
	r, err := d.report(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.views).To(BeEmpty())
	l, err := d.find(r, "a")
	g.Expect([]any{l.name, err}).To(Equal([]any{"ws.a", nil}))
	g.Expect(r.ids("")).To(Equal([]string{"a"}))
}

func TestIdentifyRefusesPoolsThatAreNotOurs(t *testing.T) {
	owned := func(tags, zero string) string {
		text := strings.Replace(recorded, `"wsdaemon.area=a-1"`, `"`+tags+`"`, 1)
		return strings.Replace(text, `"10.68", "zero":"zero"`, `"10.68", "zero":"`+zero+`"`, 1)
	}
	for name, test := range map[string]struct {
		report string
		known  bool
		kind   error
		words  string
	}{
		"ours":               {owned("wsdaemon.area=a-1", "zero"), true, nil, ""},
		"other area":         {owned("x,wsdaemon.area=a-2", "zero"), false, volume.ErrOtherDisk, "lvchange --deltag wsdaemon.area=a-2 ws/pool"},
		"no mark":            {owned("", "zero"), true, volume.ErrOtherDisk, "lvchange --addtag wsdaemon.area=a-1 ws/pool"},
		"does not zero":      {owned("wsdaemon.area=a-1", ""), true, ErrUnfit, "lvchange --zero y ws/pool"},
		"takes nothing back": {strings.Replace(recorded, `"thin,pool"`, `"thin,pool", "discards":"ignore"`, 1), true, ErrUnfit, "lvchange --discards passdown ws/pool"},
		"pool is missing":    {"{}", true, volume.ErrNoGroup, "no thin pool pool"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d, calls := reporting(t, test.report)
			err := d.Identify(t.Context(), "a-1", test.known)
			if test.kind == nil {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				g.Expect(err).To(MatchError(test.kind))
				g.Expect(err).To(MatchError(ContainSubstring(test.words)))
			}
			data, err := os.ReadFile(calls)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(strings.Count(string(data), "\n")).To(Equal(1), "nothing was changed")
		})
	}
}

func TestLogicalVolumesOfOthersAreNeverTouched(t *testing.T) {
	g := NewWithT(t)
	d, calls := reporting(t, recorded)
	_, ensure := d.Ensure(t.Context(), volume.Spec{ID: "b", Size: 1 << 30})
	_, clone := d.Clone(t.Context(), "a", volume.Spec{ID: "b", Size: 1 << 30})
	_, get := d.Get(t.Context(), "b")
	for _, err := range []error{ensure, clone, get, d.Remove(t.Context(), "b")} {
		g.Expect(err).To(MatchError(ContainSubstring("ws/ws.b is in the way (a logical volume that this class did not make)")))
	}
	data, err := os.ReadFile(calls)
	g.Expect(err).NotTo(HaveOccurred())
	for line := range strings.Lines(string(data)) {
		g.Expect(line).To(HavePrefix("lvs "))
	}
}

func TestNew(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	for want, class := range map[string]Class{
		`"-x" names no volume group`: {Root: root, Group: "-x", Pool: "p", Filesystem: "xfs"},
		`"a/b" names no`:             {Root: root, Group: "g", Pool: "a/b", Filesystem: "xfs"},
		`no file system "zfs"`:       {Root: root, Group: "g", Pool: "p", Filesystem: "zfs"},
		"open directory of mount":    {Root: filepath.Join(root, "absent"), Group: "g", Pool: "p", Filesystem: "xfs"},
	} {
		_, err := New(class)
		g.Expect(err).To(MatchError(ContainSubstring(want)))
	}
	d, err := New(Class{Root: root, Group: "g-1", Pool: "p", Filesystem: "xfs", MinSize: 5})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(d.devicePath("ws.a-b")).To(Equal("/dev/mapper/g--1-ws.a--b"))
	_, err = d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 5})
	g.Expect(err).To(HaveOccurred(), "there is no such group")
	g.Expect(d.fits(volume.Spec{Size: 300<<20 - 1})).To(MatchError("a volume of 314572799 bytes is too small: this class needs at least 314572800"))
	g.Expect(d.fits(volume.Spec{Size: 300 << 20})).To(Succeed())
}

// A template counts for what it has, which is never more than its size.
func TestTemplatesTakeWhatTheyHave(t *testing.T) {
	g := NewWithT(t)
	for tag, want := range map[string]int64{"": 1000, tagBytes + "600": 600, tagBytes + "6000": 1000, tagBytes + "many": 1000} {
		g.Expect(logical{size: 1000, tags: []string{tagOurs, tag}}.promised()).To(Equal(want), tag)
	}
	g.Expect(allocated(logical{size: 1 << 30, data: 12.5})).To(BeEquivalentTo(132<<20), "rounded up")
	g.Expect(allocated(logical{size: 1 << 30, data: 100})).To(BeEquivalentTo(1 << 30))
	d, calls := reporting(t, recorded)
	g.Expect(d.Templates(t.Context())).To(Equal([]volume.Template{{Name: "abc", Bytes: 100 << 20}}))
	for _, name := range []string{"", "-f", "a/b", "a.b", strings.Repeat("x", 65)} {
		g.Expect(d.DropTemplate(t.Context(), name)).To(MatchError(ContainSubstring("names no template")), name)
	}
	g.Expect(d.DropTemplate(t.Context(), "absent")).To(Succeed())
	g.Expect(d.DropTemplate(t.Context(), "abc")).To(Succeed())
	text, err := os.ReadFile(calls)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(text)).To(HaveSuffix("\nlvremove --force --yes --quiet -- ws/wst.abc\n"))
	g.Expect(strings.Count(string(text), "lvremove")).To(Equal(1))
}
