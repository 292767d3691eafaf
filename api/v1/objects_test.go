package v1_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

const picture = "workspaceName: ws, nodeName: node-a"

func TestSnapshotSpecIsValidated(t *testing.T) {
	tests := map[string]struct{ name, spec, want string }{
		"complete":        {"s", picture, ""},
		"longest name":    {strings.Repeat("s", 63), picture, ""},
		"name too long":   {strings.Repeat("s", 64), picture, "the name of a snapshot has at most 63 characters"},
		"no workspace":    {"s", "nodeName: node-a", "spec.workspaceName: Required value"},
		"empty workspace": {"s", "workspaceName: '', nodeName: node-a", "spec.workspaceName in body should be at least 1 chars long"},
		"long workspace":  {"s", "nodeName: a, workspaceName: " + strings.Repeat("w", 64), "may not be more than 63 bytes"},
		"no node":         {"s", "workspaceName: ws", ""},
		"empty node":      {"s", "workspaceName: ws, nodeName: ''", ""},
		"long node":       {"s", "workspaceName: ws, nodeName: " + strings.Repeat("n", 254), "may not be more than 253 bytes"},
		"policy":          {"s", picture + ", deletionPolicy: Never", `Unsupported value: "Never": supported values: "Retain", "Delete"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.verdict(s.Create(t.Context(), s.object("Snapshot", tt.name, tt.spec), client.DryRunAll), tt.want)
		})
	}
}

func TestSnapshotChangesAreValidated(t *testing.T) {
	s := newServer(t)
	o := s.object("Snapshot", "s", picture)
	s.Expect(s.Create(t.Context(), o)).To(Succeed())
	s.Expect(o.Object["spec"]).To(Equal(map[string]any{"workspaceName": "ws", "nodeName": "node-a", "deletionPolicy": "Retain"}))

	s.verdict(s.patch(t, o, "spec: {workspaceName: other}"), "workspaceName cannot change")
	s.verdict(s.patch(t, o, "spec: {nodeName: node-b, deletionPolicy: Delete}"), "")
	s.verdict(s.patchStatus(t, o, "snapshotID: s.1"), "")
	s.verdict(s.patchStatus(t, o, "snapshotID: s.1, backup: '1.2'"), "")
	s.verdict(s.patchStatus(t, o, "snapshotID: s.2"), "snapshotID never changes")
	s.verdict(s.patchStatus(t, o, "snapshotID: null"), "snapshotID never changes")
}

func TestSelectableFields(t *testing.T) {
	s := newServer(t)
	ctx := t.Context()
	s.create(t, "on-a", minimal+", nodeName: node-a")
	s.create(t, "on-b", minimal+", nodeName: node-b")
	s.create(t, "nowhere", minimal)
	var workspaces v1.WorkspaceList
	s.Expect(s.List(ctx, &workspaces, client.InNamespace(s.namespace), client.MatchingFields{"spec.nodeName": "node-a"})).To(Succeed())
	s.Expect(workspaces.Items).To(HaveLen(1))
	s.Expect(workspaces.Items[0].Name).To(Equal("on-a"))

	s.Expect(s.Create(ctx, s.object("Snapshot", "first", picture))).To(Succeed())
	s.Expect(s.Create(ctx, s.object("Snapshot", "second", "workspaceName: other, nodeName: node-b"))).To(Succeed())
	for field, value := range map[string]string{"spec.nodeName": "node-b", "spec.workspaceName": "other"} {
		var snapshots v1.SnapshotList
		s.Expect(s.List(ctx, &snapshots, client.InNamespace(s.namespace), client.MatchingFields{field: value})).To(Succeed())
		s.Expect(snapshots.Items).To(HaveLen(1))
		s.Expect(snapshots.Items[0].Name).To(Equal("second"))
	}
	err := s.List(ctx, &workspaces, client.MatchingFields{"status.nodeName": "node-a"})
	s.verdict(err, "field label not supported: status.nodeName")
}

// table returns what kubectl prints: the headers, those of `-o wide` in parentheses, and the cells of each row.
func (s *server) table(t *testing.T, path string) (headers []string, rows [][]any) {
	t.Helper()
	clients, err := kubernetes.NewForConfigAndClient(access, s.transport)
	s.Expect(err).NotTo(HaveOccurred())
	data, err := clients.RESTClient().Get().AbsPath("/apis/"+v1.GroupVersion.String()+path).
		SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1").DoRaw(t.Context())
	s.Expect(err).NotTo(HaveOccurred())
	var table metav1.Table
	s.Expect(json.Unmarshal(data, &table)).To(Succeed())
	for _, c := range table.ColumnDefinitions {
		name := c.Name
		if c.Priority > 0 {
			name = "(" + name + ")"
		}
		headers = append(headers, name)
	}
	for _, row := range table.Rows {
		rows = append(rows, row.Cells)
	}
	return headers, rows
}

func TestPrinterColumns(t *testing.T) {
	s := newServer(t)
	o := s.create(t, "ws", minimal+", nodeName: node-a")
	s.Expect(s.patchStatus(t, o, `nodeName: node-a, claim: 1, volume: {used: 3Mi},
  conditions: [{type: Stalled, status: 'True', reason: X, message: why, lastTransitionTime: '2026-01-02T03:04:05Z'},
    {type: Ready, status: 'True', reason: Running, message: the content is there, lastTransitionTime: '2026-01-02T03:04:05Z'}]`)).To(Succeed())
	headers, rows := s.table(t, "/namespaces/"+s.namespace+"/workspaces")
	s.Expect(headers).To(Equal([]string{"Name", "Ready", "Status", "Node", "Size", "Used", "Last Backup", "Age", "(Message)"}))
	s.Expect(rows).To(HaveLen(1))
	s.Expect(rows[0][:7]).To(Equal([]any{"ws", "True", "Running", "node-a", "1Gi", "3Mi", nil}))
	s.Expect(rows[0][8]).To(Equal("the content is there"))

	headers, _ = s.table(t, "/snapshots")
	s.Expect(headers).To(Equal([]string{"Name", "Workspace", "Ready", "Status", "Bytes", "Age", "(ID)", "(Message)"}))
	headers, _ = s.table(t, "/workspacenodes")
	s.Expect(headers).To(Equal([]string{
		"Name", "Ready", "Disk Pressure", "Safe To Remove", "Why", "Room", "Age", "(Message)", "(Pressure)",
	}))
}

func TestShortNames(t *testing.T) {
	s := newServer(t)
	clients, err := kubernetes.NewForConfigAndClient(access, s.transport)
	s.Expect(err).NotTo(HaveOccurred())
	list, err := clients.Discovery().ServerResourcesForGroupVersion(v1.GroupVersion.String())
	s.Expect(err).NotTo(HaveOccurred())
	got := map[string][]string{}
	for _, r := range list.APIResources {
		if !strings.Contains(r.Name, "/") {
			got[r.Kind] = append(r.ShortNames, r.Categories...)
		}
	}
	s.Expect(got).To(Equal(map[string][]string{
		"Workspace": {"ws", "wsdaemon"}, "Snapshot": {"wssnap", "wsdaemon"}, "WorkspaceNode": {"wsnode", "wsdaemon"},
	}))
}

func TestWorkspaceNodeHasNoNamespace(t *testing.T) {
	s := newServer(t)
	node := &unstructured.Unstructured{}
	node.SetGroupVersionKind(v1.GroupVersion.WithKind("WorkspaceNode"))
	node.SetName(s.namespace)
	s.Expect(s.Create(t.Context(), node)).To(Succeed())
	s.verdict(s.patchStatus(t, node, "classes: [{name: default, thinDataPercent: 101}]"), "should be less than or equal to 100")
	s.verdict(s.patchStatus(t, node, "classes: [{name: default, free: 1Gi}, {name: default}]"), "Duplicate value")
	s.verdict(s.patchStatus(t, node, "classes: [{name: default, free: 1Gi, thinDataPercent: 100}]"), "")
}

// Each constant of the API says in a sentence what it means; readers of conditions have nothing else.
func TestConstantsAreDocumented(t *testing.T) {
	g := NewWithT(t)
	file, err := parser.ParseFile(token.NewFileSet(), "conditions.go", nil, parser.ParseComments)
	g.Expect(err).NotTo(HaveOccurred())
	word := regexp.MustCompile(`^[A-Z][A-Za-z]*$`) // what the API server takes for a reason, and people for a word
	values := map[string]map[string]string{}
	seen := 0
	for _, d := range file.Decls {
		constants, ok := d.(*ast.GenDecl)
		if !ok || constants.Tok != token.CONST {
			continue
		}
		for _, c := range constants.Specs {
			value := c.(*ast.ValueSpec)
			g.Expect(value.Names).To(HaveLen(1))
			name := value.Names[0].Name
			seen++
			g.Expect(value.Doc.Text()).To(HavePrefix(name+" "), "%s is explained by its own comment", name)
			g.Expect(strings.TrimSpace(value.Doc.Text())).To(HaveSuffix("."), "%s: a whole sentence", name)
			text, err := strconv.Unquote(value.Values[0].(*ast.BasicLit).Value)
			g.Expect(err).NotTo(HaveOccurred())
			kind := regexp.MustCompile(`^(Condition|Reason|Event|Annotation|Label|Taint|Finalizer|FieldOwner|CSI)`).FindString(name)
			g.Expect(kind).NotTo(BeEmpty(), name)
			if kind == "Condition" || kind == "Reason" || kind == "Event" {
				g.Expect(text).To(MatchRegexp(word.String()))
				g.Expect(kind+text).To(Equal(name), "the constant is called as its value is")
			}
			if values[kind] == nil {
				values[kind] = map[string]string{}
			}
			g.Expect(values[kind]).NotTo(HaveKey(text), "%s: one name for one thing", name)
			values[kind][text] = name
		}
	}
	g.Expect(seen).To(BeNumerically(">", 60))
}
