// Package prometheus has what config/prometheus gives to Prometheus and Grafana answered by a Prometheus of its own, which watches
// daemons of this machine. Its tests ask Prometheus's own tool.
package prometheus

import (
	"encoding/json"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

// Rule is an alert of a PrometheusRule.
type Rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

// Rules are those of a PrometheusRule, and the text of them as Prometheus reads it from a file.
type Rules struct {
	Alerts []Rule
	Text   []byte
}

// ReadRules reads a PrometheusRule. What it does not know is refused.
func ReadRules(file string) (Rules, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Rules{}, fmt.Errorf("read rules: %w", err)
	}
	var object struct {
		APIVersion, Kind string
		Metadata         map[string]any
		Spec             json.RawMessage
	}
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		return Rules{}, fmt.Errorf("read rules of %s: %w", file, err)
	}
	var spec struct {
		Groups []struct {
			Name  string
			Rules []Rule
		}
	}
	if err := yaml.UnmarshalStrict(object.Spec, &spec); err != nil {
		return Rules{}, fmt.Errorf("read rules of %s: %w", file, err)
	}
	r := Rules{Text: object.Spec}
	for _, group := range spec.Groups {
		r.Alerts = append(r.Alerts, group.Rules...)
	}
	return r, nil
}
