package api

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

const (
	heartbeat    = 15 * time.Second
	writeTimeout = 10 * time.Second
	// streamBuffer is how many events a slow reader may lag behind before it is told to
	// read everything again.
	streamBuffer = 64
	relisten     = time.Second
)

// event says that something changed. REST tells what.
type event struct {
	Topic   campaign.Topic `json:"topic"`
	ID      string         `json:"id"`
	Version int64          `json:"version"`

	unit   campaign.OrgUnit
	number int64
}

// hub hands the database's notifications to the readers of live events.
type hub struct {
	store *store.Store
	log   *slog.Logger
	began int64 // makes the ids of one process's events differ from another's

	mu      sync.Mutex
	readers map[*reader]bool
	number  int64
	closed  bool
	units   map[string]campaign.OrgUnit // of campaigns and imports, whose unit never changes
}

// reader is one stream. lost says that events were dropped.
type reader struct {
	events chan event
	done   chan struct{}
	lost   chan struct{}
}

func newHub(s *store.Store, log *slog.Logger) *hub {
	return &hub{store: s, log: log, began: time.Now().UnixMilli(), readers: map[*reader]bool{}, units: map[string]campaign.OrgUnit{}}
}

// listen passes notifications on until ctx ends, over one connection. Whenever that
// is lost and made again, readers are told that they may have missed something.
func (h *hub) listen(ctx context.Context) {
	for first := true; ctx.Err() == nil; first = false {
		err := h.listenOnce(ctx, !first)
		if ctx.Err() != nil {
			return
		}
		h.log.WarnContext(ctx, "live events interrupted", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(relisten):
		}
	}
}

func (h *hub) listenOnce(ctx context.Context, again bool) error {
	conn, err := h.store.Pool().Acquire(ctx)
	if err != nil {
		return err
	}
	// A connection that listens must not go back to the pool.
	raw := conn.Hijack()
	defer func() { _ = raw.Close(context.WithoutCancel(ctx)) }()
	if _, err := raw.Exec(ctx, "LISTEN muster_event"); err != nil {
		return err
	}
	if again {
		h.resync()
	}
	for {
		n, err := raw.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		var e event
		if err := json.Unmarshal([]byte(n.Payload), &e); err != nil {
			h.log.WarnContext(ctx, "notification not understood", "error", err)
			continue
		}
		if e.unit, err = h.unitOf(ctx, e.Topic, e.ID); err != nil {
			if campaign.CodeOf(err) == campaign.CodeNotFound {
				continue
			}
			return err
		}
		h.publish(e)
	}
}

// maxUnits bounds the memory for units.
const maxUnits = 10_000

func (h *hub) unitOf(ctx context.Context, topic campaign.Topic, id string) (unit campaign.OrgUnit, err error) {
	if unit, ok := h.units[id]; ok {
		return unit, nil
	}
	if uuid.Validate(id) != nil {
		return "", campaign.Errorf(campaign.CodeNotFound, "nothing has this id")
	}
	if topic == campaign.TopicImport {
		unit, err = h.store.ImportOwner(ctx, id)
	} else {
		var owner store.Owner
		owner, err = h.store.CampaignOwner(ctx, id)
		unit = owner.Unit
	}
	if err != nil {
		return "", err
	}
	if len(h.units) >= maxUnits {
		clear(h.units)
	}
	h.units[id] = unit
	return unit, nil
}

func (h *hub) publish(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	e.number = h.number
	for r := range h.readers {
		select {
		case r.events <- e:
		default:
			r.lose()
		}
	}
}

func (r *reader) lose() {
	select {
	case r.lost <- struct{}{}:
	default:
	}
}

func (h *hub) resync() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for r := range h.readers {
		r.lose()
	}
}

func (h *hub) join() *reader {
	r := &reader{events: make(chan event, streamBuffer), done: make(chan struct{}), lost: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(r.done)
		return r
	}
	h.readers[r] = true
	return r
}

func (h *hub) leave(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
}

// close ends all streams.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for r := range h.readers {
		close(r.done)
	}
	clear(h.readers)
}

// stream answers with events until the reader goes, the API stops, or the caller may
// no longer read.
type stream struct {
	server *Server
	ctx    context.Context
	topics []campaign.Topic // none means all
	resync bool
}

// StreamEvents implements the operation.
func (s *Server) StreamEvents(ctx context.Context, in StreamEventsRequestObject) (StreamEventsResponseObject, error) {
	return stream{server: s, ctx: ctx, topics: in.Params.Topics, resync: in.Params.LastEventID != ""}, nil
}

// VisitStreamEventsResponse writes the stream.
func (st stream) VisitStreamEventsResponse(w http.ResponseWriter) error {
	h := st.server.hub
	r := h.join()
	defer h.leave(r)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		return nil
	}
	send := func(format string, args ...any) error {
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return err
		}
		return out.Flush()
	}
	// The reader is gone whenever writing fails: there is nobody to tell.
	if send(": welcome\nretry: 3000\n\n") != nil {
		return nil
	}
	if st.resync {
		r.lose()
	}
	ticks := time.NewTicker(heartbeat)
	defer ticks.Stop()
	units := requestOf(st.ctx).units
	for {
		var err error
		select {
		case <-st.ctx.Done():
			return nil
		case <-r.done:
			return nil
		case <-r.lost:
			err = send("event: resync\ndata: {}\n\n")
		case <-ticks.C:
			if units = st.units(); len(units) == 0 {
				return nil
			}
			err = send(": still here\n\n")
		case e := <-r.events:
			if len(st.topics) > 0 && !slices.Contains(st.topics, e.Topic) || !slices.ContainsFunc(units, e.unit.Within) {
				continue
			}
			data, marshalErr := json.Marshal(e)
			if marshalErr != nil {
				return marshalErr
			}
			err = send("id: %d-%d\ndata: %s\n\n", h.began, e.number, data)
		}
		if err != nil {
			return nil
		}
	}
}

// units reads again who the caller is and where they may listen: none when their
// session ended or they were locked out.
func (st stream) units() []campaign.OrgUnit {
	s, r := st.server, requestOf(st.ctx)
	// What st.ctx holds is the session as it was when the stream began.
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout) //nolint:forbidigo // see above
	defer cancel()
	ctx, err := s.sessions.Load(ctx, s.sessions.Token(st.ctx))
	if err != nil {
		return nil
	}
	now := &request{authorization: r.authorization}
	if err := s.authenticate(ctx, now); err != nil {
		return nil
	}
	return s.policies.Units(now.user.ID, r.route.action)
}
