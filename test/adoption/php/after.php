<?php
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if (isset($_COOKIE[session_name()]) || $path === '/login') session_start();
$subject = $_SERVER['HTTP_X_AUTH_SUBJECT'] ?? '';
$user = $subject === '' ? ($_SESSION['user']['id'] ?? null) : rawurldecode($subject);

switch ($path) {
    case '/login':
        session_regenerate_id(true);
        $_SESSION['user'] = ['id' => 'u-' . $_GET['name']];
        header('Location: /', true, 303);
        break;
    case '/logout':
        session_destroy();
        header('Location: /', true, 303);
        break;
    case '/api/me':
        header('Content-Type: application/json');
        if ($user === null) http_response_code(401);
        echo json_encode(['id' => $user]);
        break;
    default:
        echo 'hello, ' . ($user ?? 'stranger');
}
