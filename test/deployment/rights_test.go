package deployment

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// rulesOf reads the rules of a file of roles, and its text.
func rulesOf(t *testing.T, file string) ([]rbacv1.PolicyRule, string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	var rules []rbacv1.PolicyRule
	for part := range strings.SplitSeq(string(text), "\n---\n") {
		var role rbacv1.Role // a ClusterRole has the same fields, and more
		NewWithT(t).Expect(yaml.Unmarshal([]byte(part), &role)).To(Succeed())
		rules = append(rules, role.Rules...)
	}
	return rules, string(text)
}

// Whoever reviews a role finds for each verb why it is there.
func TestEveryVerbHasAReason(t *testing.T) {
	for _, file := range []string{"config/rbac/role.yaml", "config/controller/role.yaml"} {
		g := NewWithT(t)
		rules, text := rulesOf(t, file)
		verbs := 0
		for _, rule := range rules {
			g.Expect(rule.Resources).To(HaveLen(1), "one resource a rule, so that each verb of it has its reason")
			verbs += len(rule.Verbs)
		}
		g.Expect(regexp.MustCompile(`(?m)^  - [a-z]+ # \w.{5,}$`).FindAllString(text, -1)).To(HaveLen(verbs), file)
		g.Expect(text).NotTo(ContainSubstring("*"), "no wildcards")
		g.Expect(text).NotTo(ContainSubstring("[secrets]"))
	}
}

// The rights of a token are those of the role, and what everybody has: nothing of Secrets among them.
func TestTokenHasTheRightsOfTheRoleAlone(t *testing.T) {
	g := NewWithT(t)
	_, access, err := api.AddPod(t.Context(), system, account, "rights", "node-r")
	g.Expect(err).NotTo(HaveOccurred())
	clients, err := kubernetes.NewForConfig(access)
	g.Expect(err).NotTo(HaveOccurred())
	rules, _ := rulesOf(t, "config/rbac/role.yaml")
	var want []string
	for _, rule := range rules {
		want = append(want, describe(rule.APIGroups, rule.Resources, rule.ResourceNames, rule.Verbs))
	}
	for _, namespace := range []string{"default", system, "kube-system"} {
		review, err := clients.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
			Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace},
		}, metav1.CreateOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		var have []string
		for _, rule := range review.Status.ResourceRules {
			// Everybody may ask what he may, and every service account read the bundles of certificates.
			if !strings.HasPrefix(rule.Resources[0], "selfsubject") && rule.Resources[0] != "clustertrustbundles" {
				have = append(have, describe(rule.APIGroups, rule.Resources, rule.ResourceNames, rule.Verbs))
			}
		}
		g.Expect(have).To(ConsistOf(want), namespace)
	}
}

func describe(parts ...[]string) string {
	all := make([]string, len(parts))
	for i, part := range parts {
		all[i] = strings.Join(part, ",")
	}
	return strings.Join(all, " ")
}

// A daemon reads the Secrets that a namespace has granted, by name, and no others: neither can it list them, nor write any.
func TestS8_TokenReadsGrantedSecretsOnly(t *testing.T) {
	g := NewWithT(t)
	admin, token := connect(t, api.Config()), daemonOf(t, "node-s")
	for _, namespace := range []string{"granted", "other"} {
		g.Expect(admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})).To(Succeed())
		for _, name := range []string{"web-git", "web-password"} {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, StringData: map[string]string{"token": "secret"}}
			g.Expect(admin.Create(t.Context(), secret)).To(Succeed())
		}
	}
	mustRun(t, "-n", "granted", "apply", "-f", filepath.Join(root, "config/samples/secret_reader.yaml"))
	get := func(namespace, name string) error {
		return token.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &corev1.Secret{})
	}
	g.Eventually(func() error { return get("granted", "web-git") }, patience).Should(Succeed())
	forbidden := MatchError(apierrors.IsForbidden, "forbidden")
	for _, name := range [][2]string{{"granted", "web-password"}, {"other", "web-git"}, {system, "ws-daemon-store"}} {
		g.Expect(get(name[0], name[1])).To(forbidden, name[0]+"/"+name[1])
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "granted", Name: "web-git"}}
	for name, do := range map[string]func() error{
		"list all":             func() error { return token.List(t.Context(), &corev1.SecretList{}) },
		"list the granted one": func() error { return token.List(t.Context(), &corev1.SecretList{}, client.InNamespace("granted")) },
		"list its own":         func() error { return token.List(t.Context(), &corev1.SecretList{}, client.InNamespace(system)) },
		"create":               func() error { return token.Create(t.Context(), secret.DeepCopy()) },
		"update":               func() error { return token.Update(t.Context(), secret.DeepCopy()) },
		"patch": func() error {
			return token.Patch(t.Context(), secret.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`)))
		},
		"delete":     func() error { return token.Delete(t.Context(), secret.DeepCopy()) },
		"delete all": func() error { return token.DeleteAllOf(t.Context(), &corev1.Secret{}, client.InNamespace("granted")) },
	} {
		g.Expect(do()).To(forbidden, name)
	}
}
