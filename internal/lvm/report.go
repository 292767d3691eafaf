package lvm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Tags. Of those that say what a volume is, it has none (whole) or one.
const (
	// tagOurs is on every logical volume that we made; one without it is never touched.
	tagOurs = "wsdaemon"
	// tagArea is on the pool: whose it is.
	tagArea = "wsdaemon.area="
	// tagNew means that the volume has never held anything, and maybe no file system.
	tagNew = "wsdaemon.new"
	// tagClone means that the volume is being made from another.
	tagClone = "wsdaemon.clone"
	// tagView means a read-only image of one moment.
	tagView = "wsdaemon.view"
	// tagTemplate means a read-only copy of what a volume was when its content had just been written, and tagBytes what it takes at most.
	tagTemplate = "wsdaemon.template"
	tagBytes    = "wsdaemon.bytes="
	// tagGoing means that the volume is being removed; nothing of it counts.
	tagGoing = "wsdaemon.going"
)

const (
	namePrefix     = "ws."
	viewInfix      = ".view-"
	templatePrefix = "wst."
)

// nameOf returns the name of the logical volume of an id. It never looks like an option, and never like an internal volume
// of LVM: those have underscores.
func nameOf(id string) string { return namePrefix + id }

// logical is a line of LVM's report.
type logical struct {
	name, pool, origin string
	size               int64
	tags               []string
	active, readOnly   bool
	// data and metadata in percent; of a thin volume, data is what it has allocated.
	data, metadata float64
	zeroes         bool
	isPool         bool
	// unknown says of a pool that it does not tell how full it is; health what is wrong with it, in LVM's words.
	unknown bool
	health  string
	// discards says whether a pool takes blocks back that volumes do not need any more.
	discards string
}

func (l logical) has(tag string) bool { return slices.Contains(l.tags, tag) }

// id returns which volume it is or belongs to, "" for other people's logical volumes.
func (l logical) id() string {
	id, ok := strings.CutPrefix(l.name, namePrefix)
	if id, _, _ = strings.Cut(id, viewInfix); !ok || volume.ValidID(id) != nil {
		return ""
	}
	return id
}

// report is what a volume group has, at one moment.
type report struct {
	pool logical
	// volumes in the pool, by their id; also new ones and ones that are going, never views.
	volumes map[string]logical
	views   []logical
	// templates by their name.
	templates map[string]logical
	// taken is the sum of the sizes of all logical volumes in the pool but views, other people's included. Templates never grow: of
	// them it is what they have.
	taken int64
}

// ids returns the ids of all volumes of a kind, ordered; "" for whole ones.
func (r report) ids(kind string) []string {
	var ids []string
	for id, l := range r.volumes {
		if l.has(tagOurs) && l.kind() == kind {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// spare returns how much the pool may still promise. Templates go if their room is needed.
func (r report) spare() *int64 {
	left := r.pool.size - r.taken
	for _, t := range r.templates {
		left += t.promised()
	}
	left = max(0, left)
	return &left
}

func sorted(m map[string]logical) []string { return slices.Sorted(maps.Keys(m)) }

// kind returns the tag that says what a volume is, "" for a whole one.
func (l logical) kind() string {
	for _, tag := range []string{tagGoing, tagClone, tagNew, tagView} {
		if l.has(tag) {
			return tag
		}
	}
	return ""
}

const reportFields = "lv_name,pool_lv,origin,lv_size,lv_tags,lv_active,lv_permissions,data_percent,metadata_percent,zero,lv_layout," +
	"lv_health_status,discards"

// report lists the volume group; one command, however many volumes there are.
func (d *Driver) report(ctx context.Context) (report, error) {
	at, orders := d.latest.begin()
	out, err := d.tools.run(ctx, "lvm", "lvs", "--reportformat", "json", "--units", "b", "--nosuffix",
		"--options", reportFields, "--", d.class.Group)
	if err != nil {
		return report{}, err
	}
	lines, err := parseReport(out)
	if err != nil {
		return report{}, fmt.Errorf("lvm lvs %s: %w", d.class.Group, err)
	}
	r := report{volumes: map[string]logical{}, templates: map[string]logical{}}
	for _, l := range lines {
		r.add(l, d.class.Pool)
	}
	if r.pool.name == "" {
		return report{}, fmt.Errorf("%w: volume group %s has no thin pool %s: make it, or correct volumes.classes of the configuration",
			volume.ErrNoGroup, d.class.Group, d.class.Pool)
	}
	d.latest.keep(r, at, orders)
	return r, nil
}

// add puts a line of the group's list where it belongs.
func (r *report) add(l logical, pool string) {
	switch {
	case l.name == pool && l.isPool:
		r.pool = l
	case l.pool != pool && l.id() != "" && !strings.Contains(l.name, viewInfix):
		r.volumes[l.id()] = logical{name: l.name, pool: l.pool} // a name that is taken, whoever it was
	case l.pool != pool:
	case l.has(tagOurs) && l.has(tagView):
		r.views = append(r.views, l)
	case l.has(tagOurs) && l.has(tagTemplate):
		r.templates[strings.TrimPrefix(l.name, templatePrefix)] = l
		r.taken += l.promised()
	default:
		r.taken += l.size
		if l.id() != "" && !strings.Contains(l.name, viewInfix) {
			r.volumes[l.id()] = l
		}
	}
}

// parseReport reads what lvs prints.
func parseReport(data []byte) ([]logical, error) {
	var doc struct {
		Report []struct {
			LV []map[string]string `json:"lv"`
		} `json:"report"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var lines []logical
	var errs []error
	for _, section := range doc.Report {
		for _, fields := range section.LV {
			l, err := parseLine(fields)
			lines, errs = append(lines, l), append(errs, err)
		}
	}
	slices.SortFunc(lines, func(a, b logical) int { return cmp.Compare(a.name, b.name) })
	return lines, errors.Join(errs...)
}

func parseLine(fields map[string]string) (logical, error) {
	l := logical{
		name: fields["lv_name"], pool: fields["pool_lv"], origin: fields["origin"],
		active: fields["lv_active"] == "active", readOnly: strings.HasPrefix(fields["lv_permissions"], "read-only"),
		zeroes: fields["zero"] == "zero", isPool: fields["lv_layout"] == "thin,pool",
		health: fields["lv_health_status"], discards: fields["discards"],
	}
	l.unknown = l.isPool && fields["data_percent"] == ""
	if tags := fields["lv_tags"]; tags != "" {
		l.tags = strings.Split(tags, ",")
	}
	var err error
	if l.size, err = strconv.ParseInt(fields["lv_size"], 10, 64); err != nil {
		return l, fmt.Errorf("size of %s: %w", l.name, err)
	}
	l.data, err = percent(fields["data_percent"])
	if err == nil {
		l.metadata, err = percent(fields["metadata_percent"])
	}
	if err != nil {
		return l, fmt.Errorf("percentages of %s: %w", l.name, err)
	}
	return l, nil
}

// percent reads a percentage; LVM prints none for what is not active.
func percent(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	return strconv.ParseFloat(text, 64)
}
