use mdm_core::profile::acme::Attest;
use proptest::prelude::*;

use super::*;
use crate::decision::{DeviceSummary, Note};

const NOW: Timestamp = Timestamp(1_000_000_000);
const LATER: Timestamp = Timestamp(NOW.0 + 60_000);
const EARLIER: Timestamp = Timestamp(NOW.0 - 60_000);

fn decision(outcome: Outcome) -> Decision {
    Decision {
        outcome,
        form: (outcome == Outcome::Open).then_some(form()),
        reason: (outcome == Outcome::Closed).then(|| Note::from(ReasonCode::VirtualMachine)),
        demand: None,
        detail: None,
        notes: vec![],
        missing: vec![],
        device: DeviceSummary {
            product_name: None,
            marketing_name: None,
            chip: None,
            attest_support: "unknown".into(),
            basis: "none".into(),
            platform: None,
            os_version: None,
            kind: "device".into(),
            channel: "device".into(),
        },
    }
}

fn form() -> Form {
    Form { hardware_bound: true, attest: Attest::True, key_is_extractable: None, allow_all_apps_access: None }
}

fn at(state: State) -> Situation {
    Situation {
        wanted: true,
        state,
        state_revision: 2,
        revision: Some(2),
        command_outstanding: false,
        profile_sent: false,
        removes: true,
        sent_form: None,
        reason: None,
        attempts: 0,
        retry_at: None,
        asked_at: Some(NOW),
        certificate: None,
        proof_tries: 0,
        provable: true,
    }
}

fn sent(state: State) -> Situation {
    Situation { sent_form: Some(form()), profile_sent: true, ..at(state) }
}

fn certificate(renew_at: Option<Timestamp>) -> Certificate {
    Certificate { revision: 2, form: Some(form()), not_after: Timestamp(NOW.0 + 1_000_000), renew_at }
}

fn next(s: &Situation, outcome: Outcome) -> Action {
    decide(s, &decision(outcome), NOW)
}

const INSTALL: Action = Action::Install(Purpose::Install);

#[test]
fn the_way_to_the_device() {
    use Outcome::{Closed, NeedFacts, Open};
    let new = Situation { asked_at: None, ..at(State::Assigned) };
    assert_eq!(next(&new, NeedFacts), Action::AskFacts);
    assert_eq!(next(&new, Open), Action::AskFacts, "asked once at least");
    let waiting = Situation { command_outstanding: true, asked_at: None, ..at(State::AwaitingFacts) };
    assert_eq!(next(&waiting, NeedFacts), Action::Nothing);
    assert_eq!(next(&at(State::AwaitingFacts), Open), INSTALL);
    assert_eq!(next(&at(State::AwaitingFacts), Closed), Action::Block);
    let blocked = Situation { reason: Some(ReasonCode::VirtualMachine), ..at(State::Blocked) };
    assert_eq!(next(&blocked, Closed), Action::Wait(NOW.plus(FACTS_MAX_AGE)));
    assert_eq!(next(&Situation { reason: None, ..blocked.clone() }, Closed), Action::Block);
    assert_eq!(next(&blocked, Open), INSTALL);
    let installing = Situation { command_outstanding: true, ..at(State::Installing) };
    assert_eq!(next(&installing, Open), Action::Nothing);
    assert_eq!(next(&installing, Closed), Action::Block);
    assert_eq!(next(&Situation { revision: Some(3), ..installing }, Open), INSTALL);
    assert_eq!(next(&at(State::Installing), Open), Action::Lost);
}

#[test]
fn acknowledged_is_the_devices_word_and_only_a_list_of_certificates_proves() {
    let installed = sent(State::Installed);
    assert_eq!(next(&installed, Outcome::Open), Action::AskProof);
    assert_eq!(next(&Situation { command_outstanding: true, ..installed.clone() }, Outcome::Open), Action::Nothing);
    let again = Situation { proof_tries: 1, retry_at: Some(LATER), ..installed.clone() };
    assert_eq!(next(&again, Outcome::Open), Action::Wait(LATER));
    assert_eq!(decide(&again, &decision(Outcome::Open), LATER), Action::AskProof);
    let enough = Situation { proof_tries: MAX_PROOFS, retry_at: Some(EARLIER), ..installed.clone() };
    assert_eq!(next(&enough, Outcome::Open), Action::Unproved);
    let nobody_known = Situation { provable: false, proof_tries: 1, ..enough };
    assert_eq!(next(&nobody_known, Outcome::Open), Action::Nothing, "asked once, and never concluded from");
    assert_eq!(next(&Situation { revision: Some(3), ..installed.clone() }, Outcome::Open), INSTALL);
    let signer_unknown = Situation {
        reason: Some(ReasonCode::IssuersUnknown),
        proof_tries: 9,
        retry_at: Some(EARLIER),
        ..installed.clone()
    };
    assert_eq!(next(&signer_unknown, Outcome::Open), Action::AskProof, "never installed again for it");
    for outcome in [Outcome::Closed, Outcome::NeedFacts] {
        assert_eq!(next(&installed, outcome), Action::AskProof, "the gate is for what is sent next: {outcome:?}");
        assert_ne!(next(&Situation { provable: false, ..installed.clone() }, outcome), Action::AskProof, "{outcome:?}");
    }
}

#[test]
fn what_is_verified_stays_until_it_is_to_be_renewed() {
    let verified = Situation { certificate: Some(certificate(Some(LATER))), ..sent(State::Verified) };
    assert_eq!(next(&verified, Outcome::Open), Action::Wait(LATER));
    let long_ago = Situation { asked_at: Some(Timestamp(0)), ..verified.clone() };
    assert_eq!(next(&long_ago, Outcome::Open), Action::Wait(LATER), "no polling");
    assert_eq!(decide(&verified, &decision(Outcome::Open), LATER), Action::Install(Purpose::Renewal));
    let stale = LATER.plus(FACTS_MAX_AGE);
    assert_eq!(decide(&verified, &decision(Outcome::Open), stale), Action::AskFacts, "the gate is asked again");
    assert_eq!(next(&Situation { revision: Some(3), ..verified.clone() }, Outcome::Open), INSTALL);
    let weaker = Situation { sent_form: Some(Form { attest: Attest::False, ..form() }), ..verified.clone() };
    assert_eq!(next(&weaker, Outcome::Open), Action::Keep, "the certificate that was proved is of the right form");
    let of_weaker = Certificate { form: weaker.sent_form.clone(), ..certificate(Some(LATER)) };
    assert_eq!(next(&Situation { certificate: Some(of_weaker), ..weaker }, Outcome::Open), INSTALL, "stronger now");
    for outcome in [Outcome::Closed, Outcome::NeedFacts] {
        assert_eq!(next(&verified, outcome), Action::Wait(LATER), "the gate is for what is sent next: {outcome:?}");
    }
    let due = Situation { asked_at: Some(LATER), ..verified.clone() };
    assert_eq!(decide(&due, &decision(Outcome::Closed), LATER), Action::Block, "nothing is renewed past a closed gate");
    assert_eq!(next(&Situation { revision: Some(3), ..verified }, Outcome::Closed), Action::Block);
}

#[test]
fn a_certificate_that_is_as_it_should_be_is_kept() {
    for state in [State::AwaitingFacts, State::Blocked, State::Assigned, State::Held] {
        let s = Situation { certificate: Some(certificate(Some(LATER))), ..sent(state) };
        assert_eq!(next(&s, Outcome::Open), Action::Keep, "{state:?}");
        assert_eq!(next(&Situation { certificate: Some(certificate(None)), ..s }, Outcome::Open), INSTALL, "{state:?}");
    }
    // Revision 3 was queued; the rollout was paused before the device fetched it.
    let queued = Situation { state_revision: 3, command_outstanding: true, ..sent(State::Installing) };
    let queued = Situation { certificate: Some(certificate(Some(LATER))), ..queued };
    assert_eq!(next(&queued, Outcome::Open), Action::Keep);
}

#[test]
fn failures_end_but_renewals_go_on() {
    let failed = Situation { attempts: 1, retry_at: Some(LATER), ..at(State::Failed) };
    assert_eq!(next(&failed, Outcome::Open), Action::Wait(LATER));
    assert_eq!(decide(&failed, &decision(Outcome::Open), LATER), INSTALL);
    let often = Situation { attempts: MAX_ATTEMPTS, sent_form: Some(form()), retry_at: None, ..failed.clone() };
    assert_eq!(next(&often, Outcome::Open), Action::Nothing);
    assert_eq!(next(&Situation { revision: Some(3), ..often.clone() }, Outcome::Open), INSTALL, "begins anew");
    let renewing = Situation { certificate: Some(certificate(Some(EARLIER))), ..often.clone() };
    assert_eq!(next(&renewing, Outcome::Open), Action::Install(Purpose::Renewal));
    let ended = Certificate { not_after: EARLIER, ..certificate(Some(EARLIER)) };
    let over = Situation { certificate: Some(ended), ..often };
    assert_eq!(next(&over, Outcome::Open), Action::Install(Purpose::Renewal), "also when it is over");
    let shut = Situation { sent_form: None, ..over };
    assert_ne!(next(&shut, Outcome::Closed), Action::Nothing, "and when the gate is closed meanwhile");
    let waits: Vec<u64> = (1..=6).map(|n| back_off(n).as_secs()).collect();
    assert_eq!(waits, [900, 3600, 21_600, 86_400, 86_400, 86_400]);
}

#[test]
fn a_rollout_holds_back_and_takes_back() {
    let held = |s: Situation| next(&Situation { revision: None, ..s }, Outcome::Open);
    assert_eq!(held(at(State::Assigned)), Action::Hold);
    assert_eq!(held(at(State::Held)), Action::Nothing);
    assert_eq!(next(&at(State::Held), Outcome::Open), INSTALL, "its turn has come");
    assert_eq!(held(Situation { command_outstanding: true, ..at(State::Installing) }), Action::Hold, "not fetched yet");
    assert_eq!(held(sent(State::Verified)), Action::Remove, "rolled back, with nothing to go back to");
    assert_eq!(held(Situation { removes: false, ..sent(State::Verified) }), Action::Remove);
    assert_eq!(held(Situation { command_outstanding: true, ..sent(State::Removing) }), Action::Nothing);
    assert_eq!(held(Situation { attempts: MAX_ATTEMPTS, ..sent(State::Removing) }), Action::Hold);
}

#[test]
fn what_is_no_longer_wanted_is_taken_off_unless_it_is_to_be_kept() {
    let gone = |s: Situation| next(&Situation { wanted: false, ..s }, Outcome::Open);
    assert_eq!(gone(at(State::Blocked)), Action::Drop);
    assert_eq!(gone(sent(State::Verified)), Action::Remove);
    assert_eq!(gone(Situation { removes: false, ..sent(State::Verified) }), Action::Drop);
    assert_eq!(gone(Situation { command_outstanding: true, ..at(State::Removing) }), Action::Nothing);
    assert_eq!(gone(Situation { attempts: MAX_ATTEMPTS, ..at(State::Removing) }), Action::Drop);
}

#[test]
fn old_facts_are_asked_for_before_anything_is_sent_or_refused() {
    let old = Situation { asked_at: Some(Timestamp(NOW.0 - 86_400_000)), ..at(State::Assigned) };
    assert_eq!(next(&old, Outcome::Open), Action::AskFacts);
    let blocked = Situation { state: State::Blocked, reason: Some(ReasonCode::VirtualMachine), ..old };
    assert_eq!(next(&blocked, Outcome::Closed), Action::AskFacts);
}

#[test]
fn states_read_back() {
    for state in State::ALL {
        assert_eq!(State::from_text(state.as_str()), Some(state));
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    assert_eq!(State::from_text("done"), None);
}

fn forms() -> impl Strategy<Value = Option<Form>> {
    prop_oneof![Just(None), Just(Some(form())), Just(Some(Form { attest: Attest::False, ..form() }))]
}

fn times() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::of((0i64..2_000_000_000).prop_map(Timestamp))
}

prop_compose! {
    fn certificates()(revision in 1i64..4, form in forms(), not_after in 0i64..2_000_000_000, renew_at in times())
        -> Certificate {
        Certificate { revision, form, not_after: Timestamp(not_after), renew_at }
    }
}

prop_compose! {
    fn situations()(
        (wanted, command_outstanding, profile_sent, removes) in any::<(bool, bool, bool, bool)>(),
        provable in any::<bool>(),
        state in prop::sample::select(State::ALL.to_vec()),
        (state_revision, revision) in (1i64..4, prop::option::of(1i64..4)),
        (sent_form, retry_at, asked_at) in (forms(), times(), times()),
        (attempts, proof_tries) in (0i64..10, 0i64..6),
        certificate in prop::option::of(certificates()),
    ) -> Situation {
        Situation {
            wanted, state, state_revision, revision, command_outstanding, profile_sent, removes, sent_form, reason: None,
            attempts, retry_at, asked_at, certificate, proof_tries, provable,
        }
    }
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![Outcome::Open, Outcome::Closed, Outcome::NeedFacts])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_same_facts_have_the_same_answer(s in situations(), outcome in outcomes()) {
        prop_assert_eq!(next(&s, outcome), next(&s.clone(), outcome));
    }

    #[test]
    fn th_48_nothing_is_sent_on_old_facts_past_a_closed_gate_or_before_its_turn(s in situations(), outcome in outcomes()) {
        if let Action::Install(purpose) = next(&s, outcome) {
            prop_assert!(s.wanted && s.revision.is_some() && outcome == Outcome::Open);
            prop_assert!(s.asked_at.is_some_and(|t| NOW.since(t) < FACTS_MAX_AGE));
            prop_assert!(!(s.state == State::Removing && s.command_outstanding), "it is being taken off");
            if purpose == Purpose::Renewal {
                let old = s.certificate.expect("a renewal renews something");
                prop_assert!(Some(old.revision) == s.revision && old.renew_at.is_some_and(|at| at <= NOW));
            }
        }
    }

    #[test]
    fn what_stands_is_left_alone(s in situations()) {
        let renew_at = s.certificate.as_ref().and_then(|c| c.renew_at);
        let stands = s.state == State::Verified && s.wanted && s.revision == Some(s.state_revision) && s.sent_form == Some(form())
            && s.certificate.as_ref().is_some_and(|c| Some(c.revision) == s.revision && c.form == Some(form()))
            && renew_at.is_some_and(|at| at > NOW);
        if stands {
            prop_assert_eq!(next(&s, Outcome::Open), Action::Wait(renew_at.unwrap()));
        }
    }

    #[test]
    fn only_a_certificate_that_was_proved_is_kept(s in situations(), outcome in outcomes()) {
        if next(&s, outcome) == Action::Keep {
            let c = s.certificate.expect("something is kept");
            prop_assert!(outcome == Outcome::Open && Some(c.revision) == s.revision && c.form == Some(form()));
            prop_assert!(c.renew_at.is_some_and(|at| at > NOW));
        }
    }

    #[test]
    fn a_renewal_never_gives_up(mut s in situations()) {
        (s.wanted, s.state, s.revision) = (true, State::Failed, Some(s.state_revision));
        s.certificate = Some(Certificate { revision: s.state_revision, form: Some(form()), not_after: NOW, renew_at: Some(EARLIER) });
        prop_assert_ne!(next(&s, Outcome::Open), Action::Nothing);
    }

    #[test]
    fn what_is_not_wanted_is_only_taken_off_or_forgotten(mut s in situations(), outcome in outcomes()) {
        s.wanted = false;
        let action = next(&s, outcome);
        prop_assert!(matches!(action, Action::Remove | Action::Drop | Action::Wait(_) | Action::Nothing), "{:?}", action);
        if action == Action::Drop && s.profile_sent && s.removes {
            prop_assert!(s.state == State::Removing && s.attempts >= MAX_ATTEMPTS, "what is on the device is taken off first");
        }
    }
}
