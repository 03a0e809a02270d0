//! What is planned for a GlusterFS storage, from answers of real hosts (`fixtures/plans/gluster/CASE/answers.json`).
//!
//! Each plan is kept beside its case as `plan.snap`. `scripts/capture-gluster` brought the hosts into these states.

#[path = "gluster_plans/answers.rs"]
mod answers;
#[path = "gluster_plans/render.rs"]
mod render;

use std::path::{Path, PathBuf};

use stor::model::{Owned, OwnedKind, Proposal};
use stor::spec::{self, Cluster};
use stor::storage;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/plans/gluster")
}

fn cluster(case: &str) -> Cluster {
    let own = cases().join(case).join("cluster.yaml");
    spec::load(&if own.exists() { own } else { cases().join("cluster.yaml") }).unwrap()
}

fn planned(case: &str) -> (Cluster, Proposal) {
    let cluster = cluster(case);
    let seen = answers::observations(&cases(), case, &cluster);
    let mut proposal = Proposal::default();
    for backend in storage::backends(&cluster) {
        proposal.extend(backend.plan(&seen));
    }
    (cluster, proposal)
}

/// Compares with the kept plan; `cargo insta` or `INSTA_UPDATE=always` renews it.
fn golden(case: &str) {
    let (_, proposal) = planned(case);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(cases().join(case));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("plan", render::text(&proposal)));
}

fn nothing(case: &str) {
    let (_, proposal) = planned(case);
    assert_eq!(render::text(&proposal), "", "{case}");
}

#[test]
fn bare_hosts_get_everything_from_packages_to_pools() {
    golden("bare");
}

#[test]
fn hosts_with_the_packages_get_the_groups_options_in_one_call() {
    golden("installed");
}

#[test]
fn hosts_that_match_the_file_need_nothing() {
    nothing("complete");
}

#[test]
fn a_new_hypervisor_is_let_in_and_gets_its_own_steps_only() {
    golden("new-hypervisor");
}

#[test]
fn a_new_hypervisor_without_libvirt_is_mounted_and_its_pool_blocked() {
    golden("new-hypervisor-without-libvirt");
}

#[test]
fn a_second_volume_leaves_the_first_alone() {
    golden("new-volume");
}

#[test]
fn options_that_the_file_changes_are_set_in_one_call_and_equal_words_for_a_switch_are_no_change() {
    golden("changed-options");
}

#[test]
fn options_changed_by_hand_go_back_and_the_order_of_addresses_does_not_matter() {
    golden("options-changed-by-hand");
}

#[test]
fn an_option_that_would_make_images_unreadable_is_refused() {
    golden("layout-option");
}

#[test]
fn qemus_own_user_owns_the_volume_where_all_hypervisors_agree() {
    golden("qemu-runs-as-its-own-user");
}

#[test]
fn hypervisors_whose_qemu_users_differ_leave_the_owner_alone() {
    nothing("qemu-users-differ");
}

#[test]
fn a_stopped_volume_is_started() {
    golden("volume-stopped");
}

#[test]
fn a_creation_that_was_killed_half_way_goes_on_from_there() {
    golden("volume-half-made");
}

#[test]
fn a_creation_that_failed_on_one_server_is_tried_again_on_fresh_directories() {
    golden("creation-failed");
}

#[test]
fn a_volume_that_stor_did_not_make_is_refused() {
    golden("foreign-volume");
}

#[test]
fn a_volume_of_another_cluster_is_refused_even_if_the_record_has_it() {
    golden("volume-of-another-cluster");
}

#[test]
fn a_volume_with_this_clusters_mark_is_stors_even_if_the_record_is_lost() {
    nothing("record-lost");
}

#[test]
fn a_volume_deleted_by_hand_is_not_made_again_over_its_data() {
    golden("volume-deleted-by-hand");
}

#[test]
fn bricks_that_another_volume_uses_are_refused() {
    golden("bricks-used-by-another-volume");
}

#[test]
fn bricks_within_a_brick_are_refused() {
    golden("bricks-within-a-brick");
}

#[test]
fn bricks_are_never_added_or_moved() {
    golden("bricks-differ");
}

#[test]
fn an_arbiter_is_never_taken_away() {
    golden("replica-differs");
}

#[test]
fn bricks_on_the_root_file_system_need_force() {
    golden("bricks-on-the-root-file-system");
}

#[test]
fn forced_bricks_may_lie_on_the_root_file_system() {
    golden("bricks-on-the-root-file-system-forced");
}

#[test]
fn bricks_that_are_mount_points_need_force() {
    golden("bricks-on-mount-points");
}

#[test]
fn two_copies_are_made_with_a_warning() {
    golden("replica-two");
}

#[test]
fn direct_access_mounts_nothing_and_warns() {
    golden("direct");
}

#[test]
fn a_server_in_another_pool_is_refused() {
    golden("server-in-another-pool");
}

#[test]
fn a_server_with_volumes_of_its_own_is_refused() {
    golden("server-with-volumes-of-its-own");
}

#[test]
fn a_daemon_that_was_stopped_is_started_and_its_absence_reported() {
    golden("daemon-stopped");
}

#[test]
fn a_running_volume_does_not_wait_for_an_unobserved_server() {
    golden("server-unobserved");
}

#[test]
fn a_volume_is_not_created_while_a_server_is_unobserved() {
    golden("server-unobserved-on-bare-hosts");
}

#[test]
fn options_wait_for_the_first_server() {
    golden("new-hypervisor-first-server-unobserved");
}

#[test]
fn an_unobserved_hypervisor_is_blocked_by_name_and_no_other() {
    golden("hypervisor-unobserved");
}

#[test]
fn a_mount_undone_by_hand_is_mounted_again() {
    golden("mount-undone-by-hand");
}

#[test]
fn a_query_that_hangs_leaves_its_fact_unknown() {
    golden("query-killed-at-its-deadline");
}

#[test]
fn nothing_is_mounted_over_files() {
    golden("files-where-the-mount-goes");
}

#[test]
fn nothing_is_mounted_over_another_mount() {
    golden("something-else-mounted");
}

#[test]
fn a_mount_made_by_hand_gets_a_unit_so_that_it_outlives_a_boot() {
    golden("mounted-by-hand");
}

#[test]
fn a_line_in_fstab_for_the_same_volume_is_used_as_it_is() {
    golden("mount-in-fstab");
}

#[test]
fn a_line_in_fstab_for_something_else_is_refused() {
    golden("other-mount-in-fstab");
}

#[test]
fn an_edited_unit_is_written_again_without_unmounting() {
    golden("unit-edited-by-hand");
    golden("unit-edited-and-reloaded");
}

#[test]
fn a_pool_that_was_stopped_is_started() {
    golden("pool-inactive");
}

#[test]
fn a_pool_of_the_same_name_that_stor_did_not_make_is_refused() {
    golden("foreign-pool");
}

#[test]
fn every_case_is_tested() {
    let kept: Vec<String> = std::fs::read_dir(cases())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let tests = include_str!("gluster_plans.rs");
    for case in kept {
        assert!(tests.contains(&format!("(\"{case}\")")), "{case}");
    }
}

#[test]
fn whatever_a_step_creates_is_claimed_and_whatever_is_claimed_is_created() {
    let (cluster, proposal) = planned("bare");
    let backend = storage::backends(&cluster).remove(0);
    for host in cluster.hosts.keys() {
        let mut created: Vec<_> = proposal
            .steps
            .iter()
            .filter(|step| step.host == *host)
            .filter_map(|step| step.owns.as_deref().cloned())
            .collect();
        let mut claimed = backend.claims(host);
        // The volume and the peers are in one server's record, and every server claims them: which of them it is may change.
        let shared = |owned: &Owned| matches!(owned.kind, OwnedKind::GlusterVolume | OwnedKind::GlusterPeer);
        claimed.retain(|owned| !shared(owned) || created.contains(owned));
        created.sort();
        claimed.sort();
        assert_eq!(created, claimed, "{host}");
        assert!(!claimed.is_empty());
    }
    let server = "store1".parse().unwrap();
    assert!(backend.claims(&server).iter().any(|owned| owned.kind == OwnedKind::GlusterVolume));
}
