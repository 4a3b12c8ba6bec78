package apiuser

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
)

// Watch follows the live events of a topic until ctx ends and tells the id of what
// changed, or "" when anything may have. A stream that breaks is taken up again. Events
// only say that there is something to read, so a watcher that also looks from time to
// time misses nothing.
func (u *User) Watch(ctx context.Context, topic string, changed func(id string)) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := u.follow(ctx, topic, changed)
		if time.Since(began) > longestPause {
			pause = firstPause
		}
		if campaign.CodeOf(err) == campaign.CodeUnauthenticated {
			_ = u.logIn(ctx, u.session.Load())
		}
		if pause, err = u.wait(ctx, pause, err); err != nil {
			return
		}
		changed("")
	}
}

func (u *User) follow(ctx context.Context, topic string, changed func(string)) error {
	if u.session.Load() == 0 {
		if err := u.logIn(ctx, 0); err != nil {
			return err
		}
	}
	answer, err := u.api.StreamEvents(ctx, &client.StreamEventsParams{Topics: []campaign.Topic{campaign.Topic(topic)}})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return readEvents(answer.Body, changed)
}

// readEvents reads server-sent events: data lines with a JSON object that has an id,
// and "event: resync".
func readEvents(r io.Reader, changed func(string)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case name == "event" && value == "resync":
			changed("")
		case name == "data":
			var e struct {
				ID string `json:"id"`
			}
			if json.Unmarshal([]byte(value), &e) == nil && e.ID != "" {
				changed(e.ID)
			}
		}
	}
	return lines.Err()
}
