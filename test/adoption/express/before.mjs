import { RedisStore } from 'connect-redis';
import express from 'express';
import session from 'express-session';
import passport from 'passport';
import { Strategy } from 'passport-local';
import { createClient } from 'redis';

const client = createClient({ url: process.env.REDIS_URL });
await client.connect();

passport.use(new Strategy({ passwordField: 'username' }, (username, _password, done) => done(null, { id: `u-${username}` })));
passport.serializeUser((user, done) => done(null, user.id));
passport.deserializeUser((id, done) => done(null, { id }));

const app = express();
app.use(express.urlencoded());
app.use(session({ store: new RedisStore({ client }), secret: process.env.SESSION_SECRET, resave: false, saveUninitialized: false }));
app.use(passport.authenticate('session'));

app.post('/login', passport.authenticate('local', { successRedirect: '/' }));
app.post('/logout', (req, res, next) => req.logout((error) => (error ? next(error) : res.redirect('/'))));
app.get('/', (req, res) => {
  res.send(req.user ? `hello, ${req.user.id}` : 'hello, stranger');
});
app.get('/api/me', (req, res) => {
  if (!req.isAuthenticated()) return res.sendStatus(401);
  res.json({ id: req.user.id });
});
app.listen(Number(process.env.PORT), '127.0.0.1');
