package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

const (
	requestTimeout = 30 * time.Second
	replayTimeout  = 60 * time.Second
	fileTimeout    = time.Hour // of a file on its way, each piece within slowPeer
	// staleRequest is when a write that is still in flight must belong to a process
	// that died: longer than any request may take.
	staleRequest = 90 * time.Second

	maxBody        = 1 << 20
	maxOutcomeBody = 8 << 20
	maxKey         = 200
)

// request is what is known about a request once the guard let it through.
type request struct {
	id             string // of the request, in every log line and problem
	route          route
	address        string   // of the peer, never taken from a header
	authorization  []string // the Authorization headers: with one, cookies do not count
	body           []byte
	upload         *upload         // the body where it is a file
	preconditioned bool            // a version conflict is a failed If-Match
	command        string          // the update that the campaign was asked for
	action         campaign.Action // what is asked for; the route's unless the operation knows better

	user      store.User
	grants    []campaign.Grant
	authTime  time.Time          // when the caller last proved who they are; zero for a service token
	subject   store.UserDetail   // the user that the request is about
	policy    store.Policy       // the policy that the request is about
	units     []campaign.OrgUnit // for a list: where the action is allowed
	campaign  store.Campaign     // the campaign that the request is about
	programme store.Programme    // the programme that the request is about
	resultID  string             // for the row that a keyed write makes
	key       string             // the idempotency key, unique among all users
	flow      flow               // the log-in at the identity provider that the browser has begun
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		return r
	}
	return &request{}
}

// command is what every update to a campaign carries.
func (s *Server) command(r *request) campaign.Command {
	return campaign.Command{UpdateID: r.key, Actor: r.user.Actor(), PolicyVersion: s.policies.Version(r.campaign.Unit)}
}

// sign puts the API's assertion on an order: that the caller gave it, to this campaign.
// Without it no worker acts on the order.
func (s *Server) sign(r *request, name string, o campaign.Order) error {
	digest, err := campaign.PayloadDigest(o)
	if err != nil {
		return err
	}
	head := o.Head()
	head.Assertion, err = assertion.Sign(s.keys.Ring(), assertion.Command{
		ID: head.UpdateID, UserID: head.Actor.UserID, CampaignID: r.campaign.ID, Name: name, PayloadDigest: digest, IssuedAt: time.Now().Unix(),
	})
	return err
}

// guard is the way into an operation: who is it, is the request well-formed, may they,
// and was it answered before.
func (s *Server) guard(rt route, op operation) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := requestOf(c.Request().Context())
			r.route, r.action = rt, rt.action
			r.authorization = c.Request().Header.Values("Authorization")
			r.flow = s.flowOf(c.Request())
			ctx := c.Request().Context()
			switch rt.operation {
			case "streamEvents": // goes on as long as the reader wants
			default:
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, rt.timeout())
				defer cancel()
			}
			ctx, err := s.sessions.Load(ctx, s.sessionToken(c.Request(), r))
			if err != nil {
				return fmt.Errorf("load session: %w", err)
			}
			c.SetRequest(c.Request().WithContext(ctx))
			if rt.scope != public {
				if err := s.authenticate(ctx, r); campaign.CodeOf(err) == campaign.CodeTokenInvalid {
					return s.refuseStranger(ctx, r, err)
				} else if err != nil {
					return err
				}
				if r.user.PasswordTemporary && rt.scope != ofSession {
					return s.refuse(ctx, r, "", campaign.Errorf(campaign.CodePasswordChange, "somebody else chose your password: change it first (POST /v1/me/password)"))
				}
			}
			if r.user.Suspended && rt.weighs() {
				return s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "an administrator chose your password: you sign and decide nothing until another one confirms your roles"))
			}
			key := c.Request().Header.Get("Idempotency-Key")
			if rt.keyed {
				if err := checkKey(key); err != nil {
					return err
				}
			}
			if err := s.readBody(c, r, op); err != nil {
				return err
			}
			path := map[string]string{}
			for _, name := range c.ParamNames() {
				path[name] = c.Param(name)
			}
			if err := op.validate(c.Request(), path); err != nil {
				return err
			}
			if err := s.authorise(ctx, c, r); err != nil {
				return err
			}
			drop, err := s.takeUpload(ctx, c, r)
			if err != nil {
				return err
			}
			defer drop()
			if rt.keyed {
				return s.once(c, r, key, next)
			}
			return next(c)
		}
	}
}

// timeout is how long a request of the route may take.
func (rt route) timeout() time.Duration {
	switch {
	case rt.operation == "downloadExport" || uploads[rt.operation] > 0:
		return fileTimeout
	case rt.operation == "replayCampaign":
		return replayTimeout
	}
	return requestTimeout
}

// readBody reads the body within its limit and checks it strictly. A file is left for
// takeUpload, once it is known that the caller may send it.
func (s *Server) readBody(c echo.Context, r *request, op operation) error {
	if uploads[r.route.operation] > 0 {
		return nil
	}
	limit := int64(maxBody)
	switch r.route.operation {
	case "recordOutcomes", "recordCreditUses", "recordContactHistory":
		limit = maxOutcomeBody
	}
	req := c.Request()
	var err error
	r.body, err = io.ReadAll(http.MaxBytesReader(c.Response(), req.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return campaign.Errorf(campaign.CodeBodyTooLarge, "the body has more than %d bytes", limit)
	case err != nil:
		return &campaign.Error{Code: campaign.CodeMalformedBody, Message: "the body cannot be read to its end", Err: err}
	case op.body == nil && len(r.body) > 0:
		return campaign.Errorf(campaign.CodeMalformedBody, "this operation takes no body")
	case op.body == nil, op.bodyOptional && len(r.body) == 0:
		return nil
	}
	if kind, params, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || kind != "application/json" ||
		params["charset"] != "" && params["charset"] != "utf-8" && params["charset"] != "UTF-8" {
		return campaign.Errorf(campaign.CodeUnsupportedMediaType, "the body must be sent as application/json")
	}
	if err := checkBody(r.body, op.body); err != nil {
		return err
	}
	req.Body = io.NopCloser(bytes.NewReader(r.body))
	return nil
}

// binder fills a handler's body from what the guard read and checked.
type binder struct{}

// Bind implements echo.Binder.
func (binder) Bind(into any, c echo.Context) error {
	body := requestOf(c.Request().Context()).body
	if len(body) == 0 {
		return io.EOF // there is none, which generated code knows where a body is optional
	}
	if err := json.Unmarshal(body, into); err != nil {
		fault := campaign.FieldError{Code: campaign.CodeInvalidParameter, Message: "cannot be read"}
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			fault.Field = wrong.Field
		}
		return faults([]campaign.FieldError{fault})
	}
	return nil
}

// authorise lets the caller through or says why not, and looks up what the request
// is about. A campaign or task that the caller has no role at is not found, with the
// same words as one that does not exist.
func (s *Server) authorise(ctx context.Context, c echo.Context, r *request) error {
	act := r.route.action
	switch r.route.scope {
	case public, ofSession, self:
		return nil
	case somewhere:
		return s.somewhere(ctx, r)
	case ofInbox:
		return s.ofInbox(ctx, r)
	case ofUser:
		if err := s.somewhere(ctx, r); err != nil {
			return err
		}
		var err error
		if r.subject, err = s.store.User(ctx, c.Param("user_id")); err != nil {
			return err
		}
		if !r.subject.At(r.units) {
			return s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeNotFound, "there is no such user"))
		}
		return nil
	case ofProgramme:
		var err error
		if r.programme, err = s.store.Programme(ctx, c.Param("programme_id")); err != nil {
			return err
		}
		return s.permitProgramme(ctx, r)
	case ofPolicy:
		return s.findPolicy(ctx, c, r)
	case ofPlan, ofBody:
		var body struct {
			Unit campaign.OrgUnit                `json:"unit"`
			Plan struct{ Unit campaign.OrgUnit } `json:"plan"`
		}
		if err := json.Unmarshal(r.body, &body); err != nil {
			return &campaign.Error{Code: campaign.CodeMalformedBody, Message: "the body cannot be read", Err: err}
		}
		unit := body.Unit
		if r.route.scope == ofPlan {
			unit = body.Plan.Unit
		}
		if !unit.Valid() {
			fault := faults([]campaign.FieldError{{Field: "unit", Code: campaign.CodeInvalidParameter, Message: "must be a path of org units such as operator/north/harbin"}})
			if r.route.scope == ofPlan {
				return inPlan(fault)
			}
			return fault
		}
		_, err := s.policies.Require(r.user.ID, act, unit, 0)
		return s.refuse(ctx, r, "", err)
	case ofTask:
		unit, campaignID, err := s.store.TaskOwner(ctx, c.Param("task_id"))
		if err != nil {
			return err
		}
		r.units = s.policies.Units(r.user.ID, act)
		return s.permit(ctx, r, unit, campaignID, "task")
	case ofCampaign, ofBodyCampaign:
		id := c.Param("id")
		if r.route.scope == ofBodyCampaign {
			var body struct {
				CampaignID string `json:"campaign_id"`
			}
			if err := json.Unmarshal(r.body, &body); err != nil {
				return &campaign.Error{Code: campaign.CodeMalformedBody, Message: "the body cannot be read", Err: err}
			}
			id = body.CampaignID
		}
		found, err := s.store.Campaign(ctx, id)
		if err != nil {
			return err
		}
		r.campaign = found
		return s.permit(ctx, r, found.Unit, found.ID, "campaign")
	}
	return campaign.Errorf(campaign.CodeForbidden, "this operation is not open to anybody")
}

// somewhere finds the units at which the caller may do what they ask for.
func (s *Server) somewhere(ctx context.Context, r *request) error {
	if r.units = s.policies.Units(r.user.ID, r.action); len(r.units) == 0 {
		return s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "none of your roles gives %s", r.action).With("action", string(r.action)))
	}
	return nil
}

// ofInbox is somewhere, and lets those through as well to whom authority to sign was lent.
func (s *Server) ofInbox(ctx context.Context, r *request) error {
	lent, err := s.lent(ctx, r.user.ID)
	if err != nil {
		return err
	}
	r.units = s.policies.Units(r.user.ID, r.action)
	for _, d := range lent {
		if d.Valid {
			r.units = append(r.units, d.Unit)
		}
	}
	if len(r.units) > 0 {
		return nil
	}
	return s.somewhere(ctx, r)
}

func (s *Server) permit(ctx context.Context, r *request, unit campaign.OrgUnit, campaignID, what string) error {
	lent, err := s.lentAt(ctx, r, unit)
	if err != nil || lent {
		return err
	}
	if !slices.ContainsFunc(r.grants, func(g campaign.Grant) bool { return unit.Within(g.Unit) }) {
		return s.refuse(ctx, r, campaignID, campaign.Errorf(campaign.CodeNotFound, "there is no such %s", what))
	}
	_, err = s.policies.Require(r.user.ID, r.route.action, unit, 0)
	return s.refuse(ctx, r, campaignID, err)
}

// lentAt reports whether the operation is one by which people sign, and somebody has lent
// the caller the authority to sign at the unit: who may sign there may read what it is about.
func (s *Server) lentAt(ctx context.Context, r *request, unit campaign.OrgUnit) (bool, error) {
	switch r.route.operation {
	case "getApproval", "decideApproval", "getAuthority":
	default:
		return false, nil
	}
	lent, err := s.lent(ctx, r.user.ID)
	return slices.ContainsFunc(lent, func(d campaign.Delegation) bool { return d.Valid && unit.Within(d.Unit) }), err
}

// recordWithin bounds how long it may take to write down what was answered or refused.
const recordWithin = 10 * time.Second

// afterwards is for what is written down when a request is over, also when its caller
// has hung up or its time is spent. The time begins now.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), recordWithin)
}

// refuse records a refused attempt as evidence and passes the refusal on. Whoever may not
// do or see something was denied access; what they may ask for and cannot have now is a
// refused command. A fault of Muster's own is neither.
func (s *Server) refuse(ctx context.Context, r *request, campaignID string, err error) error {
	code := campaign.CodeOf(err)
	status := httpStatus(code)
	if err == nil || status >= http.StatusInternalServerError {
		return err
	}
	e := store.AuditEvent{
		ActorID: &r.user.ID, Actor: r.user.Name, Event: "command.refused",
		Data: map[string]any{"operation": r.route.operation, "action": r.action, "code": code, "request_id": r.id},
	}
	if status == http.StatusForbidden || status == http.StatusNotFound {
		e.Event = "access.denied"
	}
	if r.command != "" {
		e.Data["command"] = r.command
	}
	if campaignID != "" {
		e.CampaignID = &campaignID
	}
	if recordErr := s.record(ctx, e); recordErr != nil {
		return recordErr
	}
	return err
}

// strangersTold is how many refusals of people whom nobody knows are recorded for one
// address in attemptWindow, so that whoever asks without end fills no table.
const strangersTold = 20

// refuseStranger is refuse for a caller whom nobody knows.
func (s *Server) refuseStranger(ctx context.Context, r *request, refusal error) error {
	if !s.attempts.begin("told "+r.address, strangersTold) {
		return refusal
	}
	e := store.AuditEvent{Event: "access.denied", Data: map[string]any{"operation": r.route.operation, "code": campaign.CodeOf(refusal), "request_id": r.id}}
	if err := s.record(ctx, e); err != nil {
		return err
	}
	return refusal
}

// record writes evidence, also when the caller hangs up meanwhile.
func (s *Server) record(ctx context.Context, e store.AuditEvent) error {
	after, cancel := afterwards(ctx)
	defer cancel()
	return s.store.RecordEvent(after, e)
}

func checkKey(key string) error {
	if key == "" {
		return campaign.Errorf(campaign.CodeKeyRequired, "send an Idempotency-Key: a new one for each thing you want done, the same one for each retry of it")
	}
	printable := len(key) <= maxKey
	for i := range len(key) {
		printable = printable && key[i] > ' ' && key[i] < 0x7f
	}
	if !printable {
		return campaign.Errorf(campaign.CodeKeyInvalid, "an Idempotency-Key has 1 to %d printable ASCII characters and no spaces", maxKey)
	}
	return nil
}

// once works on a keyed write the first time and gives the same answer from then on.
func (s *Server) once(c echo.Context, r *request, key string, next echo.HandlerFunc) error {
	ctx := c.Request().Context()
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s\n", c.Request().Method, c.Request().URL.Path, c.Request().Header.Get("If-Match"))
	if query := c.Request().URL.RawQuery; query != "" {
		fmt.Fprintf(h, "%s\n", query)
	}
	h.Write(r.body)
	if r.upload != nil {
		h.Write(r.upload.sha256)
	}
	id, before, err := s.store.BeginRequest(ctx, r.user.ID, key, h.Sum(nil), staleRequest)
	if err != nil {
		return err
	}
	header := c.Response().Header()
	if before != nil {
		header.Set("Idempotency-Replayed", "true")
		if before.ETag != "" {
			header.Set("ETag", before.ETag)
		}
		return c.Blob(before.Status, before.ContentType, before.Body)
	}
	// The key reaches the campaign's workflow, where the keys of all users meet.
	r.resultID, r.key = id, r.user.ID+"/"+key

	out := c.Response().Writer
	kept := &keptAnswer{header: out.Header()}
	finished := false
	defer func() {
		if !finished {
			after, cancel := afterwards(ctx)
			defer cancel()
			if err := s.store.ReleaseRequest(after, r.user.ID, key); err != nil {
				s.log.ErrorContext(ctx, "idempotency key not released", "request_id", r.id, "error", err)
			}
		}
	}()
	c.Response().Writer = kept
	defer func() { c.Response().Writer = out }()
	if err := next(c); err != nil {
		s.writeProblem(c, err)
	}
	if !kept.retry() {
		after, cancel := afterwards(ctx)
		defer cancel()
		err := s.store.FinishRequest(after, r.user.ID, key, store.Answer{
			Status: kept.status, ContentType: header.Get("Content-Type"), Body: kept.body.Bytes(), ETag: header.Get("ETag"),
		})
		if err != nil {
			s.log.ErrorContext(ctx, "answer not kept", "request_id", r.id, "error", err)
		}
		finished = err == nil
	}
	out.WriteHeader(kept.status)
	_, err = out.Write(kept.body.Bytes())
	return err
}

// keptAnswer holds an answer back until it is kept for retries.
type keptAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *keptAnswer) Header() http.Header         { return k.header }
func (k *keptAnswer) WriteHeader(status int)      { k.status = status }
func (k *keptAnswer) Write(b []byte) (int, error) { return k.body.Write(b) }

// retry reports whether the answer is one that the same request need not get again.
func (k *keptAnswer) retry() bool {
	return k.status == 0 || k.status == http.StatusTooManyRequests || k.status >= 500
}

// begin gives each request its id and the context that everything after reads.
func begin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := uuid.Must(uuid.NewV7()).String()
		ctx := context.WithValue(c.Request().Context(), requestKey{}, &request{id: id, address: c.RealIP()})
		c.SetRequest(c.Request().WithContext(ctx))
		h := c.Response().Header()
		h.Set("X-Request-Id", id)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		return next(c)
	}
}
