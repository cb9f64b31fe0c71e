use super::choose;

#[test]
fn the_highest_figure_wins() {
    assert_eq!(choose(&[Some(0.1), Some(0.3), Some(0.2)]), Some(1));
    assert_eq!(choose(&[Some(0.0)]), Some(0));
    assert_eq!(choose(&[]), None);
}

#[test]
fn of_equal_figures_the_first_in_the_grid_wins() {
    assert_eq!(choose(&[Some(0.1), Some(0.3), Some(0.3)]), Some(1));
}

#[test]
fn a_trial_without_a_figure_wins_only_where_none_has_one() {
    assert_eq!(choose(&[None, Some(0.0), None]), Some(1));
    assert_eq!(choose(&[None, None]), Some(0));
}
