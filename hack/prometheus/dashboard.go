package prometheus

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// Query is one that a panel of a dashboard asks, with values for Grafana's variables.
type Query struct{ Panel, Expr string }

// ReadQueries reads those of a dashboard, in its order.
func ReadQueries(file string) ([]Query, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read dashboard: %w", err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		return nil, fmt.Errorf("read dashboard %s: %w", file, err)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$node", ".*")
	var queries []Query
	for _, p := range dashboard.Panels {
		for _, t := range p.Targets {
			queries = append(queries, Query{p.Title, variables.Replace(t.Expr)})
		}
	}
	return queries, nil
}
