//! The operator edge: who may do what, every refusal names its field, and each noun's story.

#[path = "api_stories/account_tokens.rs"]
mod account_tokens;
#[path = "api_stories/acme_certificates.rs"]
mod acme_certificates;
#[path = "api_stories/attestations.rs"]
mod attestations;
#[path = "api_stories/certificate_authorities.rs"]
mod certificate_authorities;
#[path = "api_stories/enrollment_doors.rs"]
mod enrollment_doors;
#[path = "api_stories/invitations.rs"]
mod invitations;
#[path = "api_stories/label_rules.rs"]
mod label_rules;
#[path = "api_stories/rollouts.rs"]
mod rollouts;

mod api_world;

use std::time::Duration;

use api::{Access, Scope, Slug};
use api_world::{TOPIC, World, plist, story, udid};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, header};
use mdm_core::ids::EnrollmentId;
use serde_json::{Value as Json, json};
use simulator::ade_service::AdeService;
use simulator::authority::Authority;

const UNKNOWN: &str = "01935000-0000-7000-8000-000000000000";

/// A path of the table with something in each parameter.
fn filled(path: &str) -> String {
    path.replace("{id}", UNKNOWN)
        .replace("{ids}", &udid(1))
        .replace("{uuid}", "some-command")
        .replace("{label}", "label")
        .replace("{name}", "name")
        .replace("{door}", "ade")
}

#[tokio::test]
async fn th_57_every_route_of_the_table_asks_for_a_token() {
    story(async |world| {
        let mut public = Vec::new();
        for route in api::surface() {
            let path = filled(&route.path);
            let answer = world.call("", route.method.clone(), &path, None).await;
            if route.access == Access::Public {
                assert!(answer.status.is_success(), "{path}");
                public.push(route.path);
                continue;
            }
            let refused = [401, 429].contains(&answer.status.as_u16());
            assert!(refused, "{} {path} answers {} without a token", route.method, answer.status);
            // The limit of failures is for one address; here everyone comes from the same.
            world.clock.advance(Duration::from_secs(1));
        }
        assert_eq!(public, ["/api/v1/openapi.json", "/version"]);
    })
    .await;
}

#[tokio::test]
async fn th_57_path_tricks_reach_nothing() {
    story(async |world| {
        for path in [
            "/api/v1/openapi.json/../enrollments",
            "/api/v1//enrollments",
            "/api/v1/enrollments;/openapi.json",
            "/api/v1/enrollments/",
            "/API/V1/enrollments",
            "/version/../api/v1/events",
            "/api/v1/%65nrollments/..",
            "//api/v1/events",
        ] {
            let answer = world.call("", Method::GET, path, None).await;
            assert!([401, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
        }
    })
    .await;
}

#[tokio::test]
async fn th_59_every_route_refuses_a_token_without_its_scope() {
    story(async |world| {
        let nothing = world.token(&[]).await;
        for route in api::surface() {
            let Access::Needs(Some(scope)) = route.access else { continue };
            world.clock.advance(Duration::from_secs(2));
            let answer = world.call(&nothing, route.method.clone(), &filled(&route.path), None).await.is(403);
            assert!(answer.json()["detail"].as_str().unwrap().contains(scope.as_str()), "{}", answer.text());
            assert_eq!(answer.slug(), "scope-missing");
        }
    })
    .await;
}

#[tokio::test]
async fn th_59_a_token_is_shown_once_stored_as_a_hash_expires_and_is_revoked_at_once() {
    story(async |world| {
        let made = world
            .post(
                "/api/v1/api-tokens",
                json!({"name": "ticket system", "scopes": ["events:read"], "expires_in_seconds": 3600}),
            )
            .await
            .is(201)
            .json();
        let token = made["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("assay_") && token.len() == 6 + 32 + 1 + 43 + 1 + 8, "{token}");
        let id = made["api_token"]["id"].as_str().unwrap().to_owned();
        let row =
            store::tokens::find(&mut world.store().read().await.unwrap(), id.parse().unwrap()).await.unwrap().unwrap();
        let secret = token.split('_').nth(2).unwrap();
        assert!(!format!("{row:?}").contains(secret) && row.sha256.len() == 32);

        world.call(&token, Method::GET, "/api/v1/events", None).await.is(200);
        assert_eq!(world.call(&token, Method::GET, "/api/v1/commands", None).await.is(403).slug(), "scope-missing");
        let listed = world.get("/api/v1/api-tokens").await.is(200);
        assert!(!listed.text().contains(secret));
        assert_eq!(listed.json()["items"].as_array().unwrap().len(), 2);

        // Last used is written in batches.
        world.shared.guard.flush(world.store()).await.unwrap();
        let row =
            store::tokens::find(&mut world.store().read().await.unwrap(), id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(row.last_used_at, Some(world.clock.now().0));

        world.delete(&format!("/api/v1/api-tokens/{id}")).await.is(204);
        world.delete(&format!("/api/v1/api-tokens/{id}")).await.is(204);
        assert_eq!(world.call(&token, Method::GET, "/api/v1/events", None).await.is(401).slug(), "token-revoked");
        world.delete(&format!("/api/v1/api-tokens/{UNKNOWN}")).await.is(404);

        world.clock.advance(Duration::from_secs(86_401));
        assert_eq!(world.get("/api/v1/events").await.is(401).slug(), "token-expired");
    })
    .await;
}

#[tokio::test]
async fn th_59_a_token_makes_no_token_that_can_do_more() {
    story(async |world| {
        let minter = world.token(&[Scope::TokensWrite, Scope::EventsRead]).await;
        let ask = |scopes: Json| json!({"name": "x", "scopes": scopes});
        let call = async |body| world.call(&minter, Method::POST, "/api/v1/api-tokens", Some(body)).await;
        call(ask(json!(["events:read"]))).await.is(201);
        for more in [json!(["admin"]), json!(["events:read", "commands:write"])] {
            assert_eq!(call(ask(more)).await.is(403).slug(), "scope-missing");
        }
        assert_eq!(call(ask(json!([]))).await.is(422).fields(), ["scopes"]);
        assert_eq!(call(ask(json!(["root"]))).await.is(422).fields(), ["scopes[0]"]);
        assert_eq!(call(json!({"name": "", "scopes": ["events:read"]})).await.is(422).fields(), ["name"]);
        let short = json!({"name": "x", "scopes": ["events:read"], "expires_in_seconds": 1});
        assert_eq!(call(short).await.is(422).fields(), ["expires_in_seconds"]);
    })
    .await;
}

#[tokio::test]
async fn th_59_guessing_is_slowed_down_and_holds_up_nobody_else() {
    story(async |world| {
        let wrong = world.admin.replace("assay_", "assay-");
        let mut last = 0;
        for _ in 0..30 {
            last = world.call(&wrong, Method::GET, "/api/v1/events", None).await.status.as_u16();
        }
        assert_eq!(last, 429);
        world.get("/api/v1/events").await.is(200);
        world.clock.advance(Duration::from_secs(60));
        let answer = world.call(&wrong, Method::GET, "/api/v1/events", None).await.is(401);
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"assay\"");
        assert_eq!(answer.slug(), "authentication-required");
        // Basic credentials, which browsers send by themselves, open nothing but NanoMDM's addresses (TH-62).
        world.nano(Method::GET, "/api/v1/events", Body::empty()).await.is(401);
        world.nano(Method::GET, &format!("/v1/queue/{}", udid(9)), Body::empty()).await.is(404);
    })
    .await;
}

#[tokio::test]
async fn every_refusal_names_the_field_and_what_would_be_right() {
    story(async |world| {
        let command = |command: Json| json!({"command": command, "targets": {"enrollment_ids": [UNKNOWN]}});
        let info = json!({"type": "device_information"});
        let with = |key: &str, value: Json| {
            let mut body = command(json!({"type": "device_information"}));
            body[key] = value;
            body
        };
        let posts = [
            (json!({}), "command"),
            (json!({"command": info}), "targets"),
            (json!({"command": info, "targets": {}}), "targets"),
            (json!({"command": info, "targets": {"labels": ["none"]}}), "targets"),
            (json!({"command": info, "targets": {"labels": ["a/b"]}}), "targets.labels[0]"),
            (json!({"command": info, "targets": {"enrollment_ids": ["x"]}}), "targets.enrollment_ids[0]"),
            (command(info.clone()), "targets"),
            (command(json!({"type": "erase"})), "command.type"),
            (command(json!({"type": "install_profile"})), "command.profile"),
            (command(json!({"type": "install_profile", "profile": "*"})), "command.profile"),
            (command(json!({"type": "install_profile", "profile": STANDARD.encode("hello")})), "command.profile"),
            (command(json!({"type": "install_profile", "profile": "", "x": 1})), "command.x"),
            (command(json!({"type": "remove_profile", "identifier": ""})), "command.identifier"),
            (command(json!({"type": "raw", "plist": STANDARD.encode("<plist/>")})), "command.plist"),
            (command(json!({"type": "device_information", "queries": ["UDID", "Nothing"]})), "command.queries[1]"),
            (with("ttl_seconds", json!(1)), "ttl_seconds"),
            (with("lane", json!("fast")), "lane"),
            (with("coalescing_key", json!("")), "coalescing_key"),
            (with("command_uuid", json!("a b")), "command_uuid"),
            (with("unknown", json!(1)), "unknown"),
        ];
        for (body, field) in posts {
            let answer = world.post("/api/v1/commands", body.clone()).await.is(422);
            assert_eq!(answer.fields(), [field], "{body}: {}", answer.text());
        }
        for (path, field) in [
            ("/api/v1/enrollments?limit=0", "limit"),
            ("/api/v1/enrollments?limit=x", "limit"),
            ("/api/v1/enrollments?limit=1&limit=2", "limit"),
            ("/api/v1/enrollments?cursor=x", "cursor"),
            ("/api/v1/enrollments?state=gone", "state"),
            ("/api/v1/enrollments?kind=gone", "kind"),
            ("/api/v1/enrollments?label=a%2Fb", "label"),
            ("/api/v1/enrollments?last_seen_after=yesterday", "last_seen_after"),
            ("/api/v1/enrollments?serail=1", "serail"),
            ("/api/v1/enrollments/not-a-uuid", "id"),
            ("/api/v1/commands?state=gone", "state"),
            ("/api/v1/events?limit=501", "limit"),
            ("/api/v1/commands/a%20b", "uuid"),
        ] {
            let answer = world.get(path).await.is(422);
            assert_eq!(answer.fields(), [field], "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_of_the_wrong_kind_or_size_are_refused() {
    story(async |world| {
        let send = async |kind: &str, encoding: &str, body: Vec<u8>| {
            let request = Request::post("/api/v1/api-tokens")
                .header(header::AUTHORIZATION, format!("Bearer {}", world.admin))
                .header(header::CONTENT_TYPE, kind)
                .header(header::CONTENT_ENCODING, encoding);
            world.send(request.body(Body::from(body)).unwrap()).await
        };
        assert_eq!(send("text/plain", "identity", b"{}".to_vec()).await.is(415).slug(), "unsupported-media-type");
        assert_eq!(send("application/json", "gzip", b"{}".to_vec()).await.is(415).slug(), "unsupported-media-type");
        assert_eq!(send("application/json", "identity", b"{".to_vec()).await.is(400).slug(), "invalid-body");
        assert_eq!(send("application/json", "identity", vec![0xFF, 0xFE]).await.is(400).slug(), "invalid-body");
        let large = vec![b' '; 1024 * 1024 + 1];
        assert_eq!(send("application/json", "identity", large).await.is(413).slug(), "body-too-large");
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        let request = Request::put("/api/v1/acme-policies/deep")
            .header(header::AUTHORIZATION, format!("Bearer {}", world.admin))
            .header(header::CONTENT_TYPE, "application/json");
        assert_eq!(world.send(request.body(Body::from(deep)).unwrap()).await.is(400).slug(), "invalid-body");
        assert_eq!(world.get("/api/v1/nothing").await.is(404).slug(), "not-found");
        assert_eq!(world.delete("/api/v1/events").await.is(405).slug(), "method-not-allowed");
        let large = json!({"type": "install_profile", "profile": STANDARD.encode(vec![0x30; 5 * 1024 * 1024 + 1])});
        let body = json!({"command": large, "targets": {"enrollment_ids": [UNKNOWN]}});
        assert_eq!(world.post("/api/v1/commands", body).await.is(422).fields(), ["command.profile"]);
    })
    .await;
}

#[tokio::test]
async fn enrollments_are_listed_found_labelled_and_shown() {
    story(async |world| {
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.push(world.enroll(n).await);
            world.clock.advance(Duration::from_secs(1));
        }
        let user = world.enroll_user(ids[0], "564D8E2C-6C3B-4A1F-9F0E-1B2C3D4E5F60").await;
        let mut seen = Vec::new();
        let mut path = "/api/v1/enrollments?limit=2".to_owned();
        loop {
            let page = world.get(&path).await.is(200).json();
            seen.extend(page["items"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/api/v1/enrollments?limit=2&cursor={cursor}");
        }
        let newest_first: Vec<String> = [user].iter().chain(ids.iter().rev()).map(ToString::to_string).collect();
        assert_eq!(seen, newest_first);

        let found = world.get(&format!("/api/v1/enrollments?udid={}", udid(0))).await.is(200).json();
        assert_eq!(found["items"].as_array().unwrap().len(), 2);
        assert_eq!(found["items"][0]["channel"], "user");
        assert_eq!(found["items"][0]["udid"], udid(0), "a user channel shows its device");
        let path = format!("/api/v1/enrollments/{}/labels/lab", ids[1]);
        world.put(&path, json!(null)).await.is(204);
        world.put(&path, json!(null)).await.is(204);
        let labelled =
            world.get("/api/v1/enrollments?label=lab&state=enrolled&product_name=iPhone17,").await.is(200).json();
        assert_eq!(labelled["items"][0]["id"], ids[1].to_string());
        assert_eq!(labelled["items"].as_array().unwrap().len(), 1);

        let shown = world.get(&format!("/api/v1/enrollments/{}", ids[1])).await.is(200).json();
        assert_eq!(shown["labels"], json!(["lab"]));
        assert_eq!(shown["enrollment"]["serial_number"], "SERIAL1");
        assert_eq!(shown["facts"]["product_name"]["value"], "iPhone17,1");
        assert_eq!(shown["facts"]["product_name"]["source"], "authenticate");
        assert!(shown["push"].is_null());
        assert_eq!(shown["enrollment"]["door"], "link");
        assert_eq!(shown["enrollment"]["awaiting_configuration"], false);
        assert_eq!(shown["identities"], json!([]));
        assert_eq!(shown["escrow"], json!({ "unlock_token": false, "bootstrap_token": false, "archived": 0 }));
        assert!(shown["account_token"].is_null());
        world.post(&format!("/api/v1/enrollments/{}/push", ids[1]), json!(null)).await.is(202);
        let shown = world.get(&format!("/api/v1/enrollments/{}", ids[1])).await.is(200).json();
        assert!(shown["push"]["due_at"].is_string());

        world.delete(&path).await.is(204);
        world.get(&format!("/api/v1/enrollments/{UNKNOWN}")).await.is(404);
        world.put(&format!("/api/v1/enrollments/{UNKNOWN}/labels/lab"), json!(null)).await.is(404);
        let events =
            world.get(&format!("/api/v1/events?enrollment_id={}&kind=enrollment.", ids[1])).await.is(200).json();
        let kinds: Vec<_> = events["items"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
        assert_eq!(kinds, ["enrollment.unlabelled", "enrollment.labelled"]);
        assert_eq!(events["items"][0]["actor"], "token:test");
    })
    .await;
}

#[tokio::test]
async fn network_users_are_put_listed_and_taken_off_and_their_passwords_shown_to_nobody() {
    story(async |world| {
        for round in ["one", "two"] {
            let path = |name: &str| format!("/api/v1/network-users/{name}{round}");
            for name in ["ada", "eve", "ada"] {
                world.put(&path(name), json!({ "password": format!("s3cret {name}") })).await.is(204);
            }
            let first = world.get("/api/v1/network-users?limit=1").await.is(200).json();
            assert_eq!(first["items"][0]["created_by"], "token:test");
            let next = first["next_cursor"].as_str().unwrap();
            let rest = world.get(&format!("/api/v1/network-users?cursor={next}")).await.is(200);
            assert!(!rest.text().contains("s3cret") && !rest.text().contains("digest"));
            assert_eq!(rest.json()["items"].as_array().unwrap().len(), 1);
            for wrong in ["a%3Ab", "a%22b", &"x".repeat(300)] {
                assert_eq!(world.put(&path(wrong), json!({ "password": "p" })).await.is(422).fields(), ["short_name"]);
            }
            for wrong in ["", &"x".repeat(257)] {
                assert_eq!(world.put(&path("bob"), json!({ "password": wrong })).await.is(422).fields(), ["password"]);
            }
            let sealed = {
                let mut tx = world.store().read().await.unwrap();
                store::network_users::get(&mut tx, &format!("ada{round}")).await.unwrap().unwrap().digest_sealed
            };
            let context = format!("network_user.digest_sealed:ada{round}");
            let digest = world.shared.commands.sealer.open(&context, &sealed).unwrap();
            assert_eq!(digest.expose().len(), 32, "HA1 of RFC 2617, and no password");
            for name in ["ada", "eve"] {
                world.delete(&path(name)).await.is(204);
                world.delete(&path(name)).await.is(404);
            }
        }
        let events = world.get("/api/v1/events?kind=network_user.").await.is(200);
        assert!(!events.text().contains("s3cret"));
        assert_eq!(events.json()["items"].as_array().unwrap().len(), 10);
    })
    .await;
}

#[tokio::test]
async fn th_12_only_the_intent_makes_a_device_unenroll() {
    story(async |world| {
        let id = world.enroll(1).await;
        let path = format!("/api/v1/enrollments/{id}/unenroll");
        let writer = world.token(&[Scope::CommandsWrite, Scope::EnrollmentsWrite]).await;
        world.call(&writer, Method::POST, &path, None).await.is(403);
        world.call(&world.admin, Method::POST, &path, None).await.is(202);
        let shown = world.get(&format!("/api/v1/enrollments/{id}")).await.is(200).json();
        assert!(shown["enrollment"]["unenroll_requested_at"].is_string());
        assert_eq!(shown["enrollment"]["state"], "enrolled");
        let at_once = format!("{path}?now=true");
        world.call(&writer, Method::POST, &at_once, None).await.is(403);
        world.call(&world.admin, Method::POST, &format!("{path}?at=once"), None).await.is(422);
        world.call(&world.admin, Method::POST, &at_once, None).await.is(204);
        let shown = world.get(&format!("/api/v1/enrollments/{id}")).await.is(200).json();
        assert_eq!(
            (&shown["enrollment"]["state"], &shown["enrollment"]["unenrolled_why"]),
            (&json!("unenrolled"), &json!("removed"))
        );
        assert!(shown["enrollment"]["unenroll_requested_at"].is_string(), "should it ever speak again");
        assert_eq!(world.call(&world.admin, Method::POST, &path, None).await.is(409).slug(), "conflict");
        let push = format!("/api/v1/enrollments/{id}/push");
        assert_eq!(world.call(&world.admin, Method::POST, &push, None).await.is(409).slug(), "conflict");
    })
    .await;
}

fn info(ids: &[EnrollmentId], uuid: &str) -> Json {
    json!({
        "command": {"type": "device_information", "queries": ["OSVersion"]},
        "targets": {"enrollment_ids": ids},
        "command_uuid": uuid,
    })
}

#[tokio::test]
async fn a_command_is_enqueued_once_shown_with_its_result_and_listed() {
    story(async |world| {
        let (one, two) = (world.enroll(1).await, world.enroll(2).await);
        let made = world.post("/api/v1/commands", info(&[one], "cmd-1")).await.is(201).json();
        assert_eq!((&made["created"], &made["request_type"]), (&json!(true), &json!("DeviceInformation")));
        // The same again is a success that adds the missing target; an unknown one fails by itself.
        let mut again = info(&[one, two], "cmd-1");
        again["targets"]["enrollment_ids"].as_array_mut().unwrap().push(json!(UNKNOWN));
        let again = world.post("/api/v1/commands", again).await.is(200).json();
        let outcomes: Vec<_> = again["targets"].as_array().unwrap().iter().map(|t| t["outcome"].clone()).collect();
        assert_eq!(outcomes, ["present", "queued", "unknown"]);
        let mut other = info(&[one], "cmd-1");
        other["command"] = json!({"type": "security_info"});
        assert_eq!(world.post("/api/v1/commands", other).await.is(409).slug(), "command-uuid-taken");

        let answer = "<key>QueryResponses</key><dict><key>OSVersion</key><string>18.1</string></dict>";
        assert_eq!(world.answer(one, 1, "Acknowledged", answer).await.as_str(), "cmd-1");
        let chain = "<key>ErrorChain</key><array><dict><key>ErrorCode</key><integer>4001</integer><key>ErrorDomain</key>\
                     <string>MCProfileErrorDomain</string></dict></array>";
        world.answer(two, 2, "Error", chain).await;
        let shown = world.get("/api/v1/commands/cmd-1").await.is(200).json();
        assert_eq!(shown["command"]["targets"], json!({"acknowledged": 1, "error": 1}));
        let targets = shown["targets"]["items"].as_array().unwrap();
        assert_eq!(targets[0]["result"]["json"]["QueryResponses"]["OSVersion"], "18.1");
        assert!(targets[0]["result"]["raw"].is_string() && targets[0]["finished_at"].is_string());
        assert_eq!(targets[1]["error_chain"][0]["code"], 4001);
        let without = world.get("/api/v1/commands/cmd-1?results=false&limit=1").await.is(200).json();
        assert!(without["targets"]["items"][0]["result"].is_null() && without["targets"]["next_cursor"].is_string());
        world.get("/api/v1/commands/nothing").await.is(404);

        world.clock.advance(Duration::from_secs(1));
        let raw = json!({"type": "raw", "plist": STANDARD.encode(plist("raw-1", "AvailableOSUpdates"))});
        let body = json!({"command": raw, "targets": {"enrollment_ids": [two]}, "push": false, "lane": "urgent"});
        world.post("/api/v1/commands", body).await.is(201);
        let list = async |query: &str| {
            let page = world.get(&format!("/api/v1/commands?{query}")).await.is(200).json();
            page["items"].as_array().unwrap().iter().map(|c| c["command_uuid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(list("").await, ["raw-1", "cmd-1"]);
        assert_eq!(list("state=queued").await, ["raw-1"]);
        assert_eq!(list("request_type=DeviceInformation").await, ["cmd-1"]);
        assert_eq!(list(&format!("enrollment_id={one}")).await, ["cmd-1"]);
        let first = world.get("/api/v1/commands?limit=1").await.json();
        assert_eq!(list(&format!("limit=1&cursor={}", first["next_cursor"].as_str().unwrap())).await, ["cmd-1"]);
    })
    .await;
}

#[tokio::test]
async fn a_command_by_label_and_as_a_property_list() {
    story(async |world| {
        let (one, two) = (world.enroll(1).await, world.enroll(2).await);
        for id in [one, two] {
            world.put(&format!("/api/v1/enrollments/{id}/labels/lab"), json!(null)).await.is(204);
        }
        let body =
            json!({"command": {"type": "profile_list"}, "targets": {"labels": ["lab"]}, "coalescing_key": "profiles"});
        assert_eq!(world.post("/api/v1/commands", body).await.is(201).json()["targets"].as_array().unwrap().len(), 2);
        let send = async |query: &str, kind: &str, body: String| {
            let request = Request::post(format!("/api/v1/commands/plist?{query}"))
                .header(header::AUTHORIZATION, format!("Bearer {}", world.admin))
                .header(header::CONTENT_TYPE, kind);
            world.send(request.body(Body::from(body)).unwrap()).await
        };
        let made =
            send("label=lab&ttl_seconds=600", "application/xml", plist("p-1", "SecurityInfo")).await.is(201).json();
        assert_eq!((&made["command_uuid"], made["targets"].as_array().unwrap().len()), (&json!("p-1"), 2));
        send(&format!("enrollment_ids={one},{two}"), "text/xml; charset=utf-8", plist("p-1", "SecurityInfo"))
            .await
            .is(200);
        assert_eq!(send("label=lab", "application/xml", "<plist/>".into()).await.is(422).fields(), ["body"]);
        assert_eq!(
            send("enrollment_ids=x", "application/xml", plist("p-2", "X")).await.is(422).fields(),
            ["enrollment_ids"]
        );
        send("label=lab", "application/json", plist("p-2", "X")).await.is(415);
    })
    .await;
}

#[tokio::test]
async fn rg_10_a_cancel_says_what_it_could_still_stop() {
    story(async |world| {
        let (one, two, three) = (world.enroll(1).await, world.enroll(2).await, world.enroll(3).await);
        world.post("/api/v1/commands", info(&[one, two, three], "cmd-1")).await.is(201);
        world.answer(one, 1, "Acknowledged", "").await;
        world.answer(two, 2, "NotNow", "").await;
        let done = world.delete("/api/v1/commands/cmd-1").await.is(200).json();
        let outcome = |id: EnrollmentId| {
            let targets = done["targets"].as_array().unwrap();
            targets.iter().find(|t| t["enrollment_id"] == id.to_string()).unwrap()["outcome"].clone()
        };
        assert_eq!([outcome(one), outcome(two), outcome(three)], ["already_ended", "already_sent", "cancelled"]);
        let shown = world.get("/api/v1/commands/cmd-1").await.is(200).json();
        assert_eq!(shown["command"]["targets"], json!({"acknowledged": 1, "cancelled": 2}));
        let unknown = world.delete(&format!("/api/v1/commands/cmd-1?enrollment_id={UNKNOWN}")).await.is(200).json();
        assert_eq!(unknown["targets"][0]["outcome"], "unknown");
        world.delete("/api/v1/commands/cmd-2").await.is(404);
    })
    .await;
}

#[tokio::test]
async fn th_60_destructive_commands_need_their_scope_a_count_and_patience() {
    story(async |world| {
        let mut ids = Vec::new();
        for n in 0..11 {
            ids.push(world.enroll(n).await);
        }
        let erase = |uuid: &str, ids: &[EnrollmentId]| {
            let raw = json!({"type": "raw", "plist": STANDARD.encode(plist(uuid, "EraseDevice"))});
            json!({"command": raw, "targets": {"enrollment_ids": ids}})
        };
        let post =
            async |token: &str, body: Json| world.call(token, Method::POST, "/api/v1/commands", Some(body)).await;
        let writer = world.token(&[Scope::CommandsWrite]).await;
        let eraser = world.token(&[Scope::CommandsDestructive]).await;
        assert_eq!(post(&writer, erase("e-1", &ids[..1])).await.is(403).slug(), "scope-missing");
        let nano = format!("/v1/enqueue/{}", udid(0));
        let request = Request::put(&nano).header(header::AUTHORIZATION, format!("Bearer {writer}"));
        world.send(request.body(Body::from(plist("e-1", "EraseDevice"))).unwrap()).await.is(403);
        post(&eraser, info(&ids[..1], "i-1")).await.is(403);
        post(&eraser, erase("e-1", &ids[..1])).await.is(201);
        let shown = world.get("/api/v1/commands/e-1").await.json();
        assert_eq!(shown["command"]["lane"], "urgent", "a lock or an erase does not wait behind a backlog (RG-08)");

        let mut many = erase("e-2", &ids);
        assert_eq!(post(&eraser, many.clone()).await.is(422).slug(), "confirmation-needed");
        many["confirm_targets"] = json!(10);
        assert_eq!(post(&eraser, many.clone()).await.is(422).slug(), "confirmation-needed");
        many["confirm_targets"] = json!(11);
        post(&eraser, many).await.is(201);
        // Removing the enrollment profile unmanages the device; removing another one does not.
        let remove = |identifier: &str| {
            json!({"command": {"type": "remove_profile", "identifier": identifier}, "targets": {"enrollment_ids": ids[..1]}})
        };
        post(&writer, remove("com.example.mdm")).await.is(403);
        post(&writer, remove("com.example.wifi")).await.is(201);
        // The same rules at NanoMDM's address.
        let all: Vec<String> = (0..11).map(udid).collect();
        let nano = format!("/v1/enqueue/{}", all.join(","));
        world.nano(Method::PUT, &nano, plist("e-3", "RestartDevice")).await.is(400);
        world.nano(Method::PUT, &format!("{nano}?nopush=1&confirm_targets=11"), plist("e-3", "RestartDevice")).await.is(200);
        let mut last = 0;
        for n in 0..40 {
            last = post(&eraser, erase(&format!("f-{n}"), &ids[..1])).await.status.as_u16();
        }
        assert_eq!(last, 429);
    })
    .await;
}

#[tokio::test]
async fn policies_are_put_assigned_explained_tried_and_deleted() {
    story(async |world| {
        let id = world.enroll(1).await;
        let policy = json!({
            "directory_url": "https://ca.example.com/acme/acme/directory",
            "client_identifier": "{serial}",
            "subject": [[["CN", "{serial}"]]],
            "attest": "required",
            "hardware_bound": "required",
        });
        let path = "/api/v1/acme-policies/wifi";
        let made = world.put(path, policy.clone()).await.is(201).json();
        assert_eq!((&made["name"], &made["revision"]), (&json!("wifi"), &json!(1)));
        assert_eq!(world.put(path, policy.clone()).await.is(200).json()["revision"], 1, "the same changes nothing");
        let mut changed = policy.clone();
        changed["notes"] = json!("for the lab");
        assert_eq!(world.put(path, changed).await.is(200).json()["revision"], 2);

        let mut wrong = policy.clone();
        wrong["directory_url"] = json!("http://ca.example.com");
        wrong["key_size"] = json!(512);
        let fields = world.put("/api/v1/acme-policies/bad", wrong).await.is(422).fields();
        assert!(fields.contains(&"directory_url".to_owned()) && fields.len() == 2, "{fields:?}");
        let mut named = policy.clone();
        named["name"] = json!("other");
        assert_eq!(world.put(path, named).await.is(422).fields(), ["name"]);
        assert_eq!(world.put("/api/v1/acme-policies/a%2Fb", policy.clone()).await.is(422).fields(), ["name"]);
        assert_eq!(world.put(path, json!([])).await.is(422).fields(), ["body"]);

        let decision = world.get(&format!("/api/v1/enrollments/{id}/acme-decision?policy=wifi")).await.is(200).json();
        assert_eq!(decision["outcome"], "open", "{decision}");
        assert_eq!(decision["form"]["attest"], "true", "{decision}");
        world.get(&format!("/api/v1/enrollments/{id}/acme-decision?policy=none")).await.is(404);
        world.get(&format!("/api/v1/enrollments/{UNKNOWN}/acme-decision?policy=wifi")).await.is(404);
        let missing = world.get(&format!("/api/v1/enrollments/{id}/acme-decision")).await.is(422);
        assert_eq!(missing.fields(), ["policy"]);

        let scope = json!({"labels": ["lab"]});
        let tried = world.post(&format!("{path}/dry-run"), json!({"scope": {"all": true}})).await.is(200).json();
        assert_eq!(tried["total"], 1);
        let unsaved = json!({"policy": policy, "scope": {"enrollment_ids": [id]}});
        assert_eq!(world.post("/api/v1/acme-policies/new/dry-run", unsaved).await.is(200).json()["total"], 1);
        let broken = json!({"policy": {"directory_url": "x"}, "scope": {"all": true}});
        let fields = world.post("/api/v1/acme-policies/new/dry-run", broken).await.is(422).fields();
        assert!(fields.iter().all(|f| f.starts_with("policy")), "{fields:?}");
        world.post("/api/v1/acme-policies/new/dry-run", json!({})).await.is(404);

        assert_eq!(world.put(&format!("{path}/assignments"), json!({})).await.is(422).fields(), ["labels"]);
        assert_eq!(world.put(&format!("{path}/assignments"), scope).await.is(202).json()["assigned"], 0);
        world.put(&format!("/api/v1/enrollments/{id}/labels/lab"), json!(null)).await.is(204);
        let shown = world.get(path).await.is(200).json();
        assert_eq!(shown["scope"]["labels"], json!(["lab"]));
        assert_eq!(shown["counts"][0]["count"], 1, "{shown}");
        let assigned = world.get(&format!("{path}/assignments")).await.is(200).json();
        assert_eq!(assigned["items"][0]["enrollment_id"], id.to_string());
        let enrollment = world.get(&format!("/api/v1/enrollments/{id}")).await.is(200).json();
        assert_eq!(enrollment["acme_policies"][0]["policy"], "wifi");
        let listed = world.get("/api/v1/acme-policies").await.is(200).json();
        assert_eq!(listed["items"].as_array().unwrap().len(), 1);

        assert_eq!(world.delete(&format!("{path}/assignments")).await.is(202).json()["leaving"], 1);
        world.delete(path).await.is(202);
        world.get(path).await.is(404);
        world.delete(path).await.is(404);
    })
    .await;
}

#[tokio::test]
async fn push_certificates_are_stored_without_their_key_and_keep_their_topic() {
    story(async |world| {
        let path = "/api/v1/push-certs";
        let stored = world.put(path, json!({"pem": World::push_pem(TOPIC)})).await.is(200).json();
        assert_eq!(stored["topic"], TOPIC);
        let listed = world.get(path).await.is(200);
        assert!(!listed.text().contains("PRIVATE") && listed.json()["items"][0]["topic"] == TOPIC);
        let other = World::push_pem("com.apple.mgmt.other");
        assert_eq!(world.put(path, json!({"pem": other})).await.is(409).slug(), "push-topic-changed");
        world.put(path, json!({"pem": other, "force": true})).await.is(200);
        for (body, field) in [
            (json!({}), "pem"),
            (json!({"pem": "x", "pkcs12": "eA=="}), "pem"),
            (json!({"pem": "x"}), "certificate"),
            (json!({"pem": "x", "password": "y"}), "password"),
            (json!({"pkcs12": "*"}), "pkcs12"),
            (json!({"pkcs12": "MAA=", "password": "y"}), "certificate"),
            (json!({"pem": World::push_pem("com.example")}), "certificate"),
        ] {
            assert_eq!(world.put(path, body.clone()).await.is(422).fields(), [field], "{body}");
        }
        let server = world.get("/api/v1/server").await.is(200).json();
        assert_eq!(server["push"][0]["usable"], true);
        assert_eq!(server["public_url"], "https://mdm.example.com/");
    })
    .await;
}

#[tokio::test]
async fn links_are_shown_once_and_revoked() {
    story(async |world| {
        let path = "/api/v1/enrollment-links";
        let made = world
            .post(path, json!({"note": "Ada's phone", "expected_serial": "SERIAL1", "label": "lab"}))
            .await
            .is(201)
            .json();
        let url = made["url"].as_str().unwrap();
        let code = url.strip_prefix("https://mdm.example.com/enroll/").unwrap();
        let listed = world.get(path).await.is(200);
        assert!(!listed.text().contains(code));
        assert_eq!(listed.json()["items"][0]["standing"], "ready");
        let id = made["enrollment_link"]["id"].as_str().unwrap();
        world.delete(&format!("{path}/{id}")).await.is(204);
        assert_eq!(world.get(path).await.is(200).json()["items"][0]["standing"], "revoked");
        world.delete(&format!("{path}/{UNKNOWN}")).await.is(404);
        world.post(path, json!({"kind": "user", "managed_apple_account": "ada@example.com"})).await.is(201);
        for (body, field) in [
            (json!({"kind": "user"}), "managed_apple_account"),
            (json!({"kind": "user", "managed_apple_account": "ada"}), "managed_apple_account"),
            (json!({"managed_apple_account": "ada@example.com"}), "managed_apple_account"),
            (json!({"kind": "user", "managed_apple_account": "a@b", "expected_serial": "S"}), "expected_serial"),
            (json!({"max_uses": 0}), "max_uses"),
            (json!({"ttl_seconds": 86401}), "ttl_seconds"),
            (json!({"expected_udid": "x"}), "expected_udid"),
            (json!({"expected_serial": "a b"}), "expected_serial"),
        ] {
            assert_eq!(world.post(path, body.clone()).await.is(422).fields(), [field], "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn th_05_an_external_identity_is_admitted_for_one_device_only() {
    story(async |world| {
        let path = "/api/v1/issuance";
        let hash = "AB".repeat(32);
        let good = json!({"certificate_sha256": hash, "kind": "device", "expected_udid": udid(1)});
        let id = world.post(path, good.clone()).await.is(201).json()["id"].as_str().unwrap().to_owned();
        assert_eq!(world.post(path, good).await.is(409).slug(), "conflict");
        for (body, field) in [
            (json!({"certificate_sha256": "12", "kind": "device", "expected_udid": udid(1)}), "certificate_sha256"),
            (json!({"certificate_sha256": hash, "kind": "device"}), "expected_udid"),
            (json!({"certificate_sha256": hash, "kind": "phone", "expected_udid": udid(1)}), "kind"),
            (json!({"certificate_sha256": hash, "kind": "user", "expected_udid": udid(1)}), "managed_apple_account"),
        ] {
            assert_eq!(world.post(path, body).await.is(422).fields(), [field]);
        }
        let listed = world.get(path).await.is(200).json();
        assert_eq!(listed["items"][0]["certificate_sha256"], hash.to_lowercase());
        world.post(&format!("{path}/{id}/revoke"), json!(null)).await.is(204);
        assert_eq!(world.get(path).await.json()["items"][0]["state"], "revoked");
        world.post(&format!("{path}/{UNKNOWN}/revoke"), json!(null)).await.is(404);
    })
    .await;
}

#[tokio::test]
async fn events_are_read_backwards_and_followed() {
    story(async |world| {
        for n in 0..5 {
            world.post("/api/v1/api-tokens", json!({"name": format!("t{n}"), "scopes": ["events:read"]})).await.is(201);
        }
        let ids = |page: &Json| {
            page["items"].as_array().unwrap().iter().map(|e| e["id"].as_i64().unwrap()).collect::<Vec<_>>()
        };
        let first = world.get("/api/v1/events?limit=3&kind=token.created").await.is(200).json();
        let next = format!("/api/v1/events?limit=3&kind=token.&cursor={}", first["next_cursor"].as_str().unwrap());
        let second = world.get(&next).await.is(200).json();
        let mut all = ids(&first);
        all.extend(ids(&second));
        assert!(all.len() == 5 && all.is_sorted_by(|a, b| a > b), "{all:?}");
        let followed = world.get(&format!("/api/v1/events?after={}", all[3])).await.is(200).json();
        assert_eq!(ids(&followed), [all[2], all[1], all[0]]);
        assert!(followed["next_cursor"].is_null());
        assert!(first["items"][0]["summary"].as_str().unwrap().contains("t4"));
    })
    .await;
}

#[tokio::test]
async fn nanomdm_enqueue_and_push_answer_as_nanomdm_does() {
    story(async |world| {
        world.put("/api/v1/push-certs", json!({"pem": World::push_pem(TOPIC)})).await.is(200);
        let (one, gone) = (world.enroll(1).await, world.enroll(2).await);
        world.enroll_user(one, "564D8E2C-6C3B-4A1F-9F0E-1B2C3D4E5F60").await;
        world.check_out(gone).await;
        let (device, left, user) = (udid(1), udid(2), format!("{}:564D8E2C-6C3B-4A1F-9F0E-1B2C3D4E5F60", udid(1)));

        let answer =
            world.nano(Method::PUT, &format!("/v1/enqueue/{device},{user}"), plist("n-1", "ProfileList")).await.is(200);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(answer.text(), "{\n\t\"command_uuid\": \"n-1\",\n\t\"request_type\": \"ProfileList\"\n}\n");
        // Again, with another method, at NanoHUB's address, without a push: a success.
        let path = format!("/api/v1/nanomdm/enqueue/{device}?nopush=1");
        let again = world.nano(Method::POST, &path, plist("n-1", "ProfileList")).await.is(200).json();
        assert_eq!(again["no_push"], true);
        let mut tx = world.store().read().await.unwrap();
        let stored = store::commands::targets_of_command(&mut tx, &"n-1".parse().unwrap(), None, 9).await.unwrap();
        drop(tx);
        assert_eq!(stored.len(), 2);

        let some = world
            .nano(Method::PUT, &format!("/v1/enqueue/{device},{left},nobody"), plist("n-2", "ProfileList"))
            .await
            .is(207)
            .json();
        assert!(some["status"][&left]["command_error"].as_str().unwrap().contains("checked out"));
        assert!(some["status"]["nobody"]["command_error"].is_string() && some["status"][&device].is_null());
        let none =
            world.nano(Method::PUT, &format!("/v1/enqueue/{left}"), plist("n-3", "ProfileList")).await.is(500).json();
        assert!(none["status"][&left]["command_error"].is_string());
        let other = world
            .nano(Method::PUT, &format!("/v1/enqueue/{device}"), plist("n-1", "SecurityInfo"))
            .await
            .is(500)
            .json();
        assert!(other["status"][&device]["command_error"].as_str().unwrap().contains("command already exists: n-1"));
        let bad = world.nano(Method::PUT, &format!("/v1/enqueue/{device}"), "hello").await.is(400).json();
        assert!(bad["command_error"].as_str().unwrap().starts_with("decoding command: "), "{bad}");
        let neither = world.nano(Method::PUT, &format!("/v1/enqueue/{device}?nopush=1"), "").await.is(500).json();
        assert_eq!(neither["command_error"], "must enqueue or push");

        assert_eq!(world.nano(Method::PUT, &format!("/v1/enqueue/{device}"), "").await.is(200).text(), "{}\n");
        assert_eq!(world.nano(Method::GET, &format!("/v1/push/{device}"), "").await.is(200).text(), "{}\n");
        let pushed = world.nano(Method::GET, &format!("/v1/push/{device},{left}"), "").await.is(207).json();
        assert_eq!(pushed["status"][&left]["push_error"], "push data missing for id");
        world.nano(Method::GET, "/v1/push/nobody", "").await.is(500);
        let empty = world.nano(Method::GET, "/v1/push/", "").await.is(500);
        assert_eq!(empty.json(), json!({"push_error": "getting enrollment ids: empty path"}));
        let moved = world.nano(Method::GET, "/v1/push", "").await.is(301);
        assert_eq!(moved.headers[header::LOCATION], "/v1/push/");

        let refused = world.call("", Method::GET, "/v1/push/x", None).await.is(401);
        assert_eq!(refused.text(), "Unauthorized\n");
        assert_eq!(refused.headers[header::WWW_AUTHENTICATE], "Basic realm=\"nanomdm\"");
        assert!(refused.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain"));
    })
    .await;
}

#[tokio::test]
async fn nanomdm_push_without_a_certificate_says_so_and_keeps_the_wish() {
    story(async |world| {
        let id = world.enroll(1).await;
        let answer = world
            .nano(Method::PUT, &format!("/v1/enqueue/{}", udid(1)), plist("n-1", "ProfileList"))
            .await
            .is(500)
            .json();
        assert!(answer["status"][udid(1)]["push_error"].as_str().unwrap().contains("no push certificate"), "{answer}");
        assert!(store::push::intent(&mut world.store().read().await.unwrap(), id).await.unwrap().is_some());
        // The command is on the queue all the same, and a retry is no error of the command.
        let retry =
            world.nano(Method::PUT, &format!("/v1/enqueue/{}?nopush=1", udid(1)), plist("n-1", "ProfileList")).await;
        retry.is(200);
    })
    .await;
}

#[tokio::test]
async fn nanomdm_pushcert_and_version() {
    story(async |world| {
        let pem = World::push_pem(TOPIC);
        let put = world.nano(Method::PUT, "/v1/pushcert", pem).await.is(200);
        assert!(
            put.text().starts_with(&format!("{{\n\t\"topic\": \"{TOPIC}\",\n\t\"not_after\": \"")),
            "{}",
            put.text()
        );
        assert_eq!(
            world.nano(Method::GET, &format!("/v1/pushcert?topic={TOPIC}"), "").await.is(200).json(),
            put.json()
        );
        let missing = world.nano(Method::GET, "/v1/pushcert", "").await.is(400).json();
        assert_eq!(missing, json!({"error": "missing required query parameter: topic"}));
        assert!(world.nano(Method::GET, "/v1/pushcert?topic=x", "").await.is(500).json()["error"].is_string());
        assert!(world.nano(Method::PUT, "/v1/pushcert", "x").await.is(400).json()["error"].is_string());
        let version = world.call("", Method::GET, "/version", None).await.is(200);
        assert_eq!(version.text(), format!("{{\n\t\"version\": \"{}\"\n}}\n", env!("CARGO_PKG_VERSION")));
    })
    .await;
}

#[tokio::test]
async fn nanomdm_queue_and_query() {
    story(async |world| {
        let one = world.enroll(1).await;
        let user = "564D8E2C-6C3B-4A1F-9F0E-1B2C3D4E5F60";
        world.enroll_user(one, user).await;
        for uuid in ["q-1", "q-2", "q-3"] {
            world.post("/api/v1/commands", info(&[one], uuid)).await.is(201);
        }
        let first = world.nano(Method::GET, &format!("/v1/queue/{}?limit=2", udid(1)), "").await.is(200).json();
        assert_eq!(first["commands"][0]["command_uuid"], "q-1");
        let command = STANDARD.decode(first["commands"][0]["command"].as_str().unwrap()).unwrap();
        assert!(String::from_utf8(command).unwrap().contains("DeviceInformation"));
        let next = format!("/v1/queue/{}?cursor={}", udid(1), first["next_cursor"].as_str().unwrap());
        assert_eq!(world.nano(Method::GET, &next, "").await.is(200).json()["commands"].as_array().unwrap().len(), 1);
        let some = world.nano(Method::DELETE, &format!("/v1/queue/{},nobody", udid(1)), "").await.is(207).json();
        assert!(some["status"]["nobody"].is_string());
        world.nano(Method::DELETE, &format!("/v1/queue/{}", udid(1)), "").await.is(204);
        world.nano(Method::DELETE, "/v1/queue/nobody", "").await.is(500);
        let emptied = world.nano(Method::GET, &format!("/v1/queue/{}", udid(1)), "").await.is(200).json();
        assert_eq!(emptied, json!({"commands": []}));

        let query =
            async |body: Json| world.nano(Method::POST, "/v1/enrollments/query", body.to_string()).await.is(200).json();
        let all = query(json!({})).await;
        assert_eq!(all["enrollments"][0]["id"], format!("{}:{user}", udid(1)));
        assert_eq!(
            (&all["enrollments"][0]["type"], &all["enrollments"][1]["type"]),
            (&json!("User"), &json!("Device"))
        );
        assert_eq!(all["enrollments"][0]["user"]["user_short_name"], "ada");
        for (filter, count) in [
            (json!({"ids": [udid(1)]}), 1),
            (json!({"serials": ["SERIAL1"]}), 2),
            (json!({"types": ["Device"], "enabled": true}), 1),
            (json!({"user_short_names": ["ada"]}), 1),
            (json!({"enabled": false}), 0),
        ] {
            let found = query(json!({"filter": filter, "options": {"include_unlock_token": true}})).await;
            assert_eq!(found["enrollments"].as_array().unwrap().len(), count, "{filter}");
        }
        let page = world.nano(Method::POST, "/v1/enrollments/query?limit=1", "").await.is(200).json();
        let rest = format!("/v1/enrollments/query?cursor={}", page["next_cursor"].as_str().unwrap());
        assert_eq!(world.nano(Method::POST, &rest, "").await.is(200).json()["enrollments"][0]["type"], "Device");
    })
    .await;
}

#[tokio::test]
async fn th_64_what_a_command_holds_is_shown_to_nobody() {
    story(async |world| {
        let one = world.enroll(1).await;
        let secret = "<key>PIN</key><string>135790</string>";
        let lock =
            plist("lock-1", "DeviceLock").replace("<key>RequestType</key>", &format!("{secret}<key>RequestType</key>"));
        world.nano(Method::PUT, &format!("/v1/enqueue/{}?nopush=1", udid(1)), lock).await.is(200);
        for path in [
            "/api/v1/commands".to_owned(),
            "/api/v1/commands/lock-1".to_owned(),
            "/api/v1/events".to_owned(),
            format!("/v1/queue/{}", udid(1)),
            format!("/api/v1/enrollments/{one}"),
        ] {
            let text = world.nano(Method::GET, &path, "").await.text() + &world.get(&path).await.is(200).text();
            assert!(!text.contains("135790") && !text.contains(&STANDARD.encode("135790")), "{path}");
        }
    })
    .await;
}

/// Everything that is logged, as text.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn th_65_no_token_and_no_body_is_logged() {
    story(async |world| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(move || writer.clone());
        let guard = tracing::subscriber::set_default(subscriber.finish());
        let one = world.enroll(1).await;
        let unknown = world.admin.replace("assay_", "assay-");
        world.call(&unknown, Method::GET, "/api/v1/events", None).await.is(401);
        let lock = plist("lock-1", "DeviceLock")
            .replace("<key>RequestType</key>", "<key>PIN</key><string>135790</string><key>RequestType</key>");
        world.nano(Method::PUT, &format!("/v1/enqueue/{}", udid(1)), lock).await;
        world
            .put(
                "/api/v1/push-certs",
                json!({"pem": "-----BEGIN PRIVATE KEY-----c2VjcmV0LWtleQ==", "password": "hunter2"}),
            )
            .await
            .is(422);
        let link = world.post("/api/v1/enrollment-links", json!({})).await.is(201).json();
        world.get(&format!("/api/v1/enrollments/{one}")).await.is(200);
        drop(guard);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("an API request had no valid token"), "{text}");
        let code = link["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let secret = world.admin.get(39..82).unwrap();
        for secret in [secret, &code, "135790", "hunter2", "c2VjcmV0LWtleQ"] {
            assert!(!text.contains(secret), "{secret} was logged");
        }
    })
    .await;
}

#[tokio::test]
async fn th_61_what_a_device_calls_itself_stays_text() {
    story(async |world| {
        let id = world.enroll(1).await;
        let name = "<script>alert(1)</script>\r\nSet-Cookie: a=b";
        let mut tx = world.store().begin().await.unwrap();
        let claims = store::enrollments::Claims { topic: TOPIC, device_name: Some(name), ..Default::default() };
        store::enrollments::authenticated(&mut tx, id, true, &claims, world.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let answer = world.get(&format!("/api/v1/enrollments/{id}")).await.is(200);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(answer.json()["enrollment"]["device_name"], name);
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
    })
    .await;
}

#[tokio::test]
async fn automated_device_enrollment_is_run_by_the_api() {
    story(async |world| {
        let made = world.post("/api/v1/ade-servers", json!({ "name": "Example Inc." })).await.is(201).json();
        let path = format!("/api/v1/ade-servers/{}", made["id"].as_str().unwrap());
        let server = |rest: &str| format!("{path}{rest}");
        assert_eq!(made["health"], "no_token");
        world.post("/api/v1/ade-servers", json!({ "name": "Example Inc." })).await.is(409);
        assert_eq!(world.post("/api/v1/ade-servers", json!({ "name": " x" })).await.is(422).fields(), ["name"]);
        assert_eq!(world.post(&server("/sync"), json!({})).await.is(409).slug(), "conflict");

        // The portal gives a token for the certificate.
        let authority = Authority::new("Stand-in for Apple").unwrap();
        let apple = AdeService::start(&authority).await.unwrap();
        apple.set_now(world.clock.now().0);
        let (portal, other) = (apple.add_server("ours"), apple.add_server("theirs"));
        let pem = made["certificate_pem"].as_str().unwrap();
        let put =
            async |p7m: &str, force: bool| world.put(&server("/token"), json!({ "token": p7m, "force": force })).await;
        assert_eq!(put("hello", false).await.is(422).fields(), ["token"]);
        let answer = put(&portal.token(pem, 365).unwrap(), false).await.is(200);
        assert!(!answer.text().contains("access_secret") && !answer.text().contains("sealed"));
        assert_eq!(answer.json()["health"], "ok");
        assert_eq!(put(&other.token(pem, 365).unwrap(), false).await.is(409).slug(), "conflict");
        world.post(&server("/sync"), json!({})).await.is(202);

        // Profiles.
        let wrong = json!({ "profile_name": "", "is_mdm_removable": false });
        let wrong = world.put("/api/v1/ade-profiles/staff", wrong).await.is(422).fields();
        assert_eq!(wrong, ["profile_name", "is_mdm_removable"]);
        let url = json!({ "profile_name": "Staff", "url": "https://evil.example.com" });
        assert_eq!(world.put("/api/v1/ade-profiles/staff", url).await.is(422).fields(), ["url"]);
        let staff = json!({ "profile_name": "Staff", "await_device_configured": true });
        world.put("/api/v1/ade-profiles/staff", staff.clone()).await.is(201);
        assert_eq!(world.put("/api/v1/ade-profiles/staff", staff).await.is(200).json()["revision"], 1);
        let changed = json!({ "profile_name": "All staff" });
        assert_eq!(world.put("/api/v1/ade-profiles/staff", changed).await.is(200).json()["revision"], 2);
        assert_eq!(world.get("/api/v1/ade-profiles").await.is(200).json()["items"][0]["name"], "staff");
        let default = world.put(&server("/default-profile"), json!({ "profile": "staff" })).await.is(200).json();
        assert_eq!(default["default_profile"], "staff");
        world.put(&server("/default-profile"), json!({ "profile": "nothing" })).await.is(404);
        world.delete("/api/v1/ade-profiles/staff").await.is(409);

        // Devices, as a visit to Apple would have stored them.
        let id = made["id"].as_str().unwrap().parse().unwrap();
        let mut tx = world.store().begin().await.unwrap();
        for serial in ["C02A", "C02B"] {
            let seen = store::ade::devices::Seen { serial_number: serial.into(), ..Default::default() };
            store::ade::devices::upsert(&mut tx, id, &seen, world.clock.now()).await.unwrap();
        }
        tx.commit().await.unwrap();
        let page = world.get("/api/v1/ade-devices?limit=1&approved=false").await.is(200).json();
        assert_eq!(page["items"][0]["serial_number"], "C02A");
        let next = page["next_cursor"].as_str().unwrap();
        let page = world.get(&format!("/api/v1/ade-devices?limit=1&cursor={next}")).await.is(200).json();
        assert_eq!((&page["items"][0]["serial_number"], page.get("next_cursor")), (&json!("C02B"), None));
        let both = json!(["C02A", "C02B"]);
        world.post("/api/v1/ade-devices/approve", json!({ "serial_numbers": both })).await.is(204);
        let some = json!({ "serial_numbers": ["C02A", "SPOOFED"] });
        let refused = world.post("/api/v1/ade-devices/approve", some).await.is(404);
        assert!(refused.json()["detail"].as_str().unwrap().contains("SPOOFED"));
        world
            .post("/api/v1/ade-devices/approve", json!({ "serial_numbers": ["C02B"], "approved": false }))
            .await
            .is(204);
        world.post("/api/v1/ade-devices/label", json!({ "serial_numbers": both, "label": "lab" })).await.is(204);
        world
            .post("/api/v1/ade-devices/assign", json!({ "serial_numbers": ["C02A"], "profile": "staff" }))
            .await
            .is(202);
        world.post("/api/v1/ade-devices/assign", json!({ "serial_numbers": [], "profile": null })).await.is(422);
        let one = world.get("/api/v1/ade-devices/C02A").await.is(200).json();
        assert_eq!((&one["label"], &one["profile"]), (&json!("lab"), &json!("staff")));
        assert!(one["approved_at"].is_string());
        assert!(world.get("/api/v1/ade-devices/C02B").await.json().get("approved_at").is_none());
        world.get("/api/v1/ade-devices/SPOOFED").await.is(404);

        // Apple cannot be reached from here: said as it is, and nothing is a fault of the server.
        let unreachable = world.get(&server("/account-driven-enrollment")).await.is(409);
        assert!(unreachable.json()["detail"].as_str().unwrap().contains("cannot be reached"));
        world.put(&server("/account-driven-enrollment"), json!({})).await.is(409);
        world.delete(&server("/account-driven-enrollment")).await.is(409);

        let listed = world.get("/api/v1/ade-servers").await.is(200).json();
        assert_eq!(listed["items"][0]["devices"][0]["count"], 2);
        world.delete(&path).await.is(204);
        world.get(&path).await.is(404);
        world.get("/api/v1/ade-devices/C02A").await.is(404);
        world.delete("/api/v1/ade-profiles/staff").await.is(204);
        let events = world.get("/api/v1/events?kind=ade.").await.is(200).text();
        for kind in ["ade.server_created", "ade.token_put", "ade.profile_put", "ade.approved", "ade.assigned"] {
            assert!(events.contains(kind), "{kind}");
        }
    })
    .await;
}

#[test]
fn the_description_that_is_checked_in_is_the_one_that_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let served = api::openapi();
    if std::env::var_os("ASSAY_UPDATE").is_some() {
        std::fs::write(path, &served).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == served,
        "docs/openapi.json is out of date: ASSAY_UPDATE=1 cargo test -p mdm-tests --test api description"
    );
    let json: Json = serde_json::from_str(&served).unwrap();
    assert!(json["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut ids = Vec::new();
    for (path, item) in json["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(id) = operation["operationId"].as_str() else { continue };
            assert!(!ids.contains(&id), "{method} {path}: the operationId {id} is taken");
            ids.push(id);
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
        }
    }
    assert_eq!(ids.len(), api::surface().len(), "every route is described");
}

#[test]
fn every_problem_type_is_explained() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md")).unwrap();
    for slug in Slug::ALL {
        let (name, status, _) = slug.parts();
        assert!(text.contains(&format!("\n## {name}\n")), "docs/errors.md does not explain {name}");
        assert!(text.contains(&format!("\n## {name}\n\nStatus {}", status.as_u16())), "the status of {name}");
    }
}

#[tokio::test]
async fn th_11_identities_are_listed_renewed_and_revoked() {
    story(async |world| {
        let (id, other) = (world.enroll(1).await, world.enroll(2).await);
        let user = world.enroll_user(id, "11111111-2222-3333-4444-555555555555").await;
        let certificate = identity(world.clock.now(), 100);
        let hash = certificate.fingerprint();
        let mut tx = world.store().begin().await.unwrap();
        assert!(store::identities::bind(&mut tx, id, None, &certificate, world.clock.now()).await.unwrap());
        tx.commit().await.unwrap();

        let path = "/api/v1/identities";
        let shown = world.get(path).await.is(200).json();
        let one = &shown["items"][0];
        assert_eq!(
            (one["certificate_sha256"].as_str(), one["state"].as_str()),
            (Some(&*hash.to_string()), Some("live"))
        );
        assert_eq!(one["enrollment_id"], id.to_string());
        assert!(one["renewal"].is_null());
        assert_eq!(world.get(&format!("{path}?expiring_within_days=30")).await.json()["items"], json!([]));
        assert_eq!(world.get(&format!("{path}?near_end=true")).await.json()["items"], json!([]));
        for (query, field) in
            [("state=dead", "state"), ("expiring_within_days=99999", "expiring_within_days"), ("cursor=x", "cursor")]
        {
            assert_eq!(world.get(&format!("{path}?{query}")).await.is(422).fields(), [field]);
        }

        // Renewal: of an enrolled device with an identity only.
        let renewal = |id: &dyn std::fmt::Display| format!("/api/v1/enrollments/{id}/renewal");
        world.post(&renewal(&UNKNOWN), json!(null)).await.is(404);
        for nothing in [other, user] {
            assert_eq!(world.post(&renewal(&nothing), json!(null)).await.is(409).slug(), "conflict");
        }
        world.post(&renewal(&id), json!(null)).await.is(202);
        world.post(&renewal(&id), json!(null)).await.is(202);
        let shown = world.get(&format!("{path}?enrollment_id={id}&state=live")).await.is(200).json();
        assert_eq!(shown["items"][0]["renewal"]["state"], "due");
        assert_eq!(shown["items"][0]["renewal"]["reason"], "operator");

        // Near its end, with what has kept it from being renewed.
        world.clock.advance(std::time::Duration::from_secs(90 * 86_400));
        let admin = world.token(&[Scope::Admin]).await;
        let get = async |path: String| world.call(&admin, Method::GET, &path, None).await.is(200).json();
        let stuck = get(format!("{path}?near_end=true")).await;
        assert_eq!(stuck["items"][0]["enrollment_id"], id.to_string());
        assert!(stuck["items"][0]["renewal"]["attempts"].is_number());
        assert_eq!(get(format!("{path}?expiring_within_days=30")).await["items"].as_array().unwrap().len(), 1);

        // A permission that was handed out goes with the identity, whichever way it is revoked.
        let open = async || {
            let wanted = issuer::issuance::OpenIssuance {
                flow: store::issuance::Flow::Renewal,
                purpose: store::issuance::Purpose::Renewal,
                kind: mdm_core::enrollment::EnrollmentKind::Device,
                enrollment_id: Some(id),
                link_id: None,
                expected_serial: None,
                expected_udid: None,
                label: None,
                ttl: std::time::Duration::from_secs(600),
                details: issuer::issuance::Details::default(),
            };
            let mut tx = world.store().begin().await.unwrap();
            let random = mdm_core::random::Random::System;
            let (record, _) = issuer::issuance::open(&mut tx, &random, world.clock.now(), &wanted).await.unwrap();
            tx.commit().await.unwrap();
            record
        };
        let record = open().await;
        let gone = format!("{path}/{hash}");
        let weak = world.token(&[Scope::IssuanceWrite, Scope::CommandsWrite]).await;
        world.call(&weak, Method::DELETE, &gone, None).await.is(403);
        world.call(&admin, Method::DELETE, &gone, None).await.is(204);
        let mut tx = world.store().read().await.unwrap();
        let void = store::issuance::get(&mut tx, record).await.unwrap().unwrap();
        assert_eq!(void.state, store::issuance::State::Void);
        drop(tx);
        world.call(&admin, Method::DELETE, &gone, None).await.is(204);
        world.call(&admin, Method::DELETE, &format!("{path}/{}", "ab".repeat(32)), None).await.is(404);
        assert_eq!(world.call(&admin, Method::DELETE, &format!("{path}/ab"), None).await.is(422).fields(), ["sha256"]);
        assert_eq!(get(format!("{path}?state=revoked")).await["items"].as_array().unwrap().len(), 1);
        world.call(&admin, Method::POST, &renewal(&id), None).await.is(409);
    })
    .await;
}

/// A certificate that lives so many days from `from`.
fn identity(from: mdm_core::time::Timestamp, days: i64) -> mdm_core::certificate::Certificate {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    let at = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    params.not_before = at(from.unix_seconds());
    params.not_after = at(from.unix_seconds() + days * 86_400);
    let key = rcgen::KeyPair::generate().unwrap();
    mdm_core::certificate::Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap()
}
