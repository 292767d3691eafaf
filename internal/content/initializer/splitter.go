package initializer

import "bytes"

// splitter finds the entries of an output in which each ends with a zero. Of a long one the beginning is kept.
type splitter struct {
	entry []byte
	// size is the whole length of the entry that take is given.
	size int
}

// split takes a part of the output; it ends with the first error of take, whose argument is good until it returns.
func (s *splitter) split(p []byte, most int, take func(entry []byte) error) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, 0)
		part := p
		if end >= 0 {
			part = p[:end]
		}
		s.entry = append(s.entry, part[:min(len(part), most-len(s.entry))]...)
		s.size += len(part)
		if end < 0 {
			return n, nil
		}
		if err := take(s.entry); err != nil {
			return 0, err
		}
		s.entry, s.size, p = s.entry[:0], 0, p[end+1:]
	}
	return n, nil
}
