package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Duration is a time span written as people do: "10m", "1h30m", "7d".
type Duration struct{ time.Duration }

const day = 24 * time.Hour

// maxDays keeps sums of durations and dates within what they can be: a hundred years are for ever.
const maxDays = 36500

var days = regexp.MustCompile(`^([0-9]{1,6})d(.*)$`)

// UnmarshalJSON reads a quoted duration.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return unitError(`a duration is a text such as "10m" or "7d"`, data)
	}
	parsed, err := parseDuration(text)
	if err != nil {
		return unitError(`a duration is a text such as "10m" or "7d"`, data)
	}
	d.Duration = parsed
	return nil
}

// parseDuration reads what time.ParseDuration does, and days before it.
func parseDuration(text string) (time.Duration, error) {
	parts := days.FindStringSubmatch(text)
	if parts == nil {
		return boundedDuration(time.ParseDuration(text))
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil || n > maxDays {
		return 0, errTooLong
	}
	rest := time.Duration(0)
	if parts[2] != "" {
		if rest, err = time.ParseDuration(parts[2]); err != nil || rest < 0 {
			return 0, errors.Join(errTooLong, err)
		}
	}
	return boundedDuration(time.Duration(n)*day+rest, nil)
}

var errTooLong = errors.New("a hundred years are the longest")

func boundedDuration(d time.Duration, err error) (time.Duration, error) {
	if err == nil && d.Abs() > maxDays*day {
		err = errTooLong
	}
	return d, err
}

// String writes the duration as UnmarshalJSON reads it, without units that say nothing.
func (d Duration) String() string {
	if n := d.Duration / day; n > 1 && d.Duration%day == 0 {
		return strconv.FormatInt(int64(n), 10) + "d"
	}
	text := d.Duration.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalJSON writes the duration as UnmarshalJSON reads it.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// Size is a number of bytes, written as Kubernetes does: "20Gi", "500M".
type Size int64

var sizeText = regexp.MustCompile(`^[0-9]{1,19}(\.[0-9]{1,9})?([kMGTPE]|[KMGTPE]i)?$`)

// UnmarshalJSON reads a quoted quantity of whole bytes.
func (s *Size) UnmarshalJSON(data []byte) error {
	const want = `a size is a text such as "20Gi" or "512Mi"`
	var text string
	if err := json.Unmarshal(data, &text); err != nil || !sizeText.MatchString(text) {
		return unitError(want, data)
	}
	quantity, err := resource.ParseQuantity(text)
	if err != nil || quantity.CmpInt64(math.MaxInt64) >= 0 || quantity.CmpInt64(quantity.Value()) != 0 {
		return unitError(want+", of whole bytes", data)
	}
	*s = Size(quantity.Value())
	return nil
}

// String writes the size as UnmarshalJSON reads it.
func (s Size) String() string { return resource.NewQuantity(int64(s), resource.BinarySI).String() }

// MarshalJSON writes the size as UnmarshalJSON reads it.
func (s Size) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// unitError says what was expected, and what stands in the file.
func unitError(want string, got []byte) error { return fmt.Errorf("%s, not %s", want, excerpt(got)) }

// excerpt is the beginning of what stands in the file, in one line.
func excerpt(data []byte) string {
	const longest = 60
	text := strings.Join(strings.Fields(string(data)), " ")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}
