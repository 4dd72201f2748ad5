//! The host as its users have it: the real program with real components.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic, wherever that is")]

mod common;

mod access;
mod accidents;
mod admin_listener;
mod audit;
mod bad_input;
mod browser;
mod cli;
mod command_line;
mod composition;
mod configuration;
mod configuration_files;
mod deploy;
mod deploy_gates;
mod deploy_grants;
mod derived;
mod dev_loop;
mod event_streams;
mod export;
mod fresh;
mod full_disk;
mod fuzz;
mod gateway;
mod gc;
mod hosts;
mod identity;
mod killed;
mod large_events;
mod lifecycle;
mod lineage;
mod log_away;
mod message_streams;
mod messages;
mod nats;
mod nats_access;
mod openapi;
mod operator;
mod outgoing;
mod partition;
mod perimeter;
mod permissions;
mod projection;
mod property;
mod read_models;
mod reports;
mod rollback;
mod shop;
mod sign_in;
mod signatures;
mod starters;
mod storm;
mod swaps;
mod tls;
